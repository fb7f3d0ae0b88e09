"""How good a model is: videos of clips it has never seen, and numbers with labels.

Two videos per clip (the protocol of LatentSync, section 4): *reconstruction* gives the
clip's own speech back to it, *cross* gives it the speech of another test clip.
"""

from tasks.evaluation_config import EvaluationConfig

__all__ = ["EvaluationConfig"]
