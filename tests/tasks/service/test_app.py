"""The web interface as clients see it, by a real web server; nothing works on the queue."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import UserError
from datasets.fetch.policy import DownloadSettings
from datasets.sources.addresses import AddressPolicy
from tasks.lipsync.job import OPTIONS, job_of
from tasks.service import command
from tasks.service.app import MOST_BODY, make_app
from tasks.service.look import Look
from tasks.service.queue import CANCELLED, DONE, JobQueue
from tasks.service.service import Service, ServiceSettings

Ask = Callable[..., tuple[int, Any]]


class Looking:
    """Says what it is told to say about files."""

    answer = Look(frames=50)

    def __call__(self, values: Mapping[str, Any]) -> Look:
        return self.answer


@pytest.fixture
def looking() -> Looking:
    return Looking()


@pytest.fixture
def service(tmp_path: Path, looking: Looking) -> Iterator[Service]:
    policy = AddressPolicy(schemes=("http", "https"))
    downloads = DownloadSettings(addresses=policy, keep_free_bytes=1)
    settings = ServiceSettings(tmp_path / "s", 1000, most_waiting=2, downloads=downloads)
    settings.folder.mkdir()
    queue = JobQueue(f"sqlite:///{tmp_path}/s/q.db", settings.most_waiting)
    yield Service(settings, queue, look=looking)
    queue.close()


@pytest.fixture
def ask(service: Service) -> Iterator[Ask]:
    """Send a request; gives status and body."""
    with command._listening(make_app(service, "täken"), "127.0.0.1", 0) as url:

        def asked(
            method: str,
            path: str,
            body: Any = None,
            token: str = "t\u00e4ken",
            headers: Mapping[str, str] | None = None,
        ) -> tuple[int, Any]:
            data = iter(body) if isinstance(body, list) else body
            if isinstance(body, dict):
                data = json.dumps(body).encode()
            request = urllib.request.Request(url + path, data, method=method)
            bearer = f"Bearer {token}".encode().decode("latin-1")
            request.add_header("Authorization", bearer)
            for name, value in (headers or {}).items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, _content(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, _content(error.read())

        yield asked


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def sources(ask: Ask) -> dict[str, str]:
    """A video and a speech that were uploaded."""
    return {
        "video": ask("POST", "/uploads?name=my%20v%C3%AFdeo.MP4", b"video")[1]["source"],
        "audio": ask("POST", "/uploads", b"audio")[1]["source"],
    }


def test_a_job_goes_from_upload_to_result(ask: Ask, service: Service) -> None:
    given = sources(ask)
    assert given["video"].endswith(".mp4")
    options = given | {"output": "../../x.mkv", "face": 2, "length": "keep"}
    status, told = ask("POST", "/jobs", options)
    assert (status, told["state"], told["ahead"], told["job"]) == (201, "queued", 0, options)
    path = f"/jobs/{told['id']}"
    assert ask("GET", f"{path}/result")[0] == 409
    taken = service.queue.take()
    assert taken is not None
    assert ask("GET", path)[1]["progress"] == {"step": "starting", "done": 0, "total": None}
    place = service.place(taken.id)
    place.folder.mkdir()
    place.progress.write_text('{"step": "repainting faces", "done": 3, "total": 9}')
    assert ask("GET", path)[1]["progress"]["done"] == 3
    output = place.output(taken.job)
    assert output == place.folder / "out.mkv", "only the suffix of the name counts"
    output.write_bytes(b"result")
    service.queue.end(taken.id, DONE, {"status": "done", "frames": 9, "seconds": 18.0})
    assert ask("GET", path)[1]["result"]["frames"] == 9
    assert ask("GET", f"{path}/result") == (200, b"result")
    assert [each["id"] for each in ask("GET", "/jobs")[1]] == [taken.id]
    expected = {"frames": 50, "seconds": 100.0, "waiting": 0}
    assert ask("POST", "/estimate", options) == (200, expected)
    output.unlink()
    assert ask("GET", f"{path}/result")[0] == 410


def test_the_body_is_a_view_of_a_job(ask: Ask, service: Service) -> None:
    given = sources(ask)
    segments = [{"begin_s": 1, "end_s": 2, "audio": given["audio"], "face": 1}]
    options = {"video": given["video"], "segments": segments, "guidance": 2, "output": "o.mov"}
    checked = job_of(service.checked(options))
    paths = {name: str(service.uploads / text.partition(":")[2]) for name, text in given.items()}
    there = [{**segments[0], "audio": paths["audio"]}]
    assert checked == job_of(options | {"video": paths["video"], "segments": there})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a file of the service": ({"video": "/etc/passwd"}, "must be an http or https address"),
    "a file as address": ({"video": "file:///etc/passwd"}, "must be an http or https address"),
    "another upload": ({"video": "upload:../q.db"}, "there is no upload 'upload:../q.db'"),
    "no upload": ({"video": "upload:" + "0" * 32}, "there is no upload"),
    "this machine": ({"video": "http://127.0.0.1/v.mp4"}, "is refused: 127.0.0.1 is loopback"),
    "its name": ({"audio": "http://localhost:80/a"}, "is a host on this machine"),
    "the cloud": ({"video": "http://169.254.169.254/x"}, "is link-local"),
    "a private webhook": ({"webhook": "http://10.0.0.1/"}, "webhook 'http://10.0.0.1/' is refused"),
    "no webhook": ({"webhook": "ftp://x"}, "webhook must be an http or https address"),
    "a file in a segment": (
        {"segments": [{"audio": "/etc/passwd"}]},
        "must be an http or https address",
    ),
    "unknown": ({"lenght": "keep"}, "there is no option 'lenght': did you mean 'length'?"),
    "a folder": ({"output": "x"}, "its name must end in .mp4"),
    "overlap": ({"segments": [{}, {}]}, "overlap"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(name: str, ask: Ask, service: Service) -> None:
    given, said = REFUSED[name]
    status, told = ask("POST", "/jobs", sources(ask) | given)
    assert status == 422
    assert said in told["detail"]
    assert str(service.settings.folder) not in told["detail"]
    assert service.queue.waiting() == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff"])
def test_a_body_that_is_no_job_is_refused(body: bytes, ask: Ask) -> None:
    assert ask("POST", "/jobs", body)[0] == 422


def test_what_is_too_large_is_refused_and_leaves_nothing(
    ask: Ask, service: Service, looking: Looking
) -> None:
    given = sources(ask)
    before = set(service.uploads.iterdir())
    assert ask("POST", "/uploads", b"x" * 1001)[0] == 413
    pieces = [b"x" * 600, b"x" * 600]
    assert ask("POST", "/uploads", pieces)[0] == 413, "in pieces, without a length"
    assert ask("POST", "/uploads", b"")[0] == 422
    assert ask("POST", "/jobs", b" " * (MOST_BODY + 1))[0] == 413
    looking.answer = Look("a file lasts 700.0 s, at most 600 s are taken", too_long=True)
    status, told = ask("POST", "/jobs", given)
    assert (status, "at most 600 s" in told["detail"]) == (413, True)
    looking.answer = Look(f"the video {service.uploads}/x cannot be used")
    assert ask("POST", "/jobs", given) == (422, {"detail": "the video upload:x cannot be used"})
    assert set(service.uploads.iterdir()) == before


def test_a_full_queue_says_when_to_come_again(ask: Ask, service: Service) -> None:
    given = sources(ask)
    assert [ask("POST", "/jobs", given)[0] for _ in range(3)] == [201, 201, 429]
    service.queue.take()
    assert ask("POST", "/jobs", given)[0] == 201


def test_nobody_comes_in_without_the_token(ask: Ask) -> None:
    paths = [
        ("POST", "/uploads"),
        ("POST", "/jobs"),
        ("POST", "/estimate"),
        ("GET", "/jobs"),
        ("GET", "/jobs/x"),
        ("GET", "/jobs/x/result"),
        ("DELETE", "/jobs/x"),
        ("GET", "/schema"),
    ]
    for method, path in paths:
        for token in ("", "t", "täken2"):
            assert ask(method, path, b"{}" if method == "POST" else None, token)[0] == 401, path
    assert ask("GET", "/health", token="")[0] == 200


def test_a_job_is_cancelled_once(ask: Ask, service: Service) -> None:
    _, told = ask("POST", "/jobs", sources(ask))
    path = f"/jobs/{told['id']}"
    assert ask("DELETE", path)[1]["state"] == CANCELLED
    assert ask("DELETE", path)[1]["state"] == CANCELLED
    assert ask("GET", f"{path}/result")[0] == 409
    assert service.queue.take() is None
    assert ask("GET", "/jobs/nothing")[0] == 404
    assert ask("DELETE", "/jobs/nothing")[0] == 404


def test_the_description_has_all_options_of_a_job(ask: Ask) -> None:
    status, told = ask("GET", "/openapi.json")
    assert status == 200
    body = told["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {*OPTIONS, "webhook"}
    assert "$ref" not in json.dumps(body)
    assert ask("GET", "/docs")[0] == 200


def test_old_files_go_and_those_of_waiting_jobs_stay(ask: Ask, service: Service) -> None:
    given, others = sources(ask), sources(ask)
    waits = ask("POST", "/jobs", given)[1]["id"]
    ended = ask("POST", "/jobs", others)[1]["id"]
    for each in (waits, ended):
        service.place(each).folder.mkdir()
    service.cancel(ended)
    assert service.clean() == 0
    service._clock = lambda: 1e12
    assert service.clean() == 3
    assert {each.name for each in service.uploads.iterdir()} == {
        each.partition(":")[2] for each in given.values()
    }
    assert [each.name for each in service.jobs.iterdir()] == [waits]


def test_a_public_address_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(command.TOKEN, raising=False)
    assert command.main([str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "everybody who reaches 0.0.0.0 could use the service" in capsys.readouterr().err
    empty = tmp_path / "token"
    empty.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        command._secret("X", empty)
