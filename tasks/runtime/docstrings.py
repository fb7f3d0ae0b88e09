"""What docstrings say about parameters, for texts that are made from them."""


def argument_helps(doc: str) -> dict[str, str]:
    """Texts of the parameters in the `Args:` section of a docstring.

    Args:
        doc: the docstring as `inspect.getdoc` gives it.
    """
    _, _, section = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            break
        if indent == 4 and ": " in line:
            name, _, text = line.strip().partition(": ")
            found[name] = text
        elif name:
            found[name] += " " + line.strip()
    return found
