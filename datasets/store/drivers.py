"""What S3 and Google Cloud Storage do differently: probing, multipart uploads, checksums.

fsspec's file systems (s3fs, gcsfs) communicate with the services. Each operation here is one
attempt; `RemoteStore` repeats those that may succeed later.
"""

import base64
import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec

PART = 16 << 20
"""Bytes of one part of a multipart upload; S3 takes 5 MiB to 5 GiB and up to 10,000 parts."""
PARTS_AT_ONCE = 4
COPY_LIMIT = 5 << 30
"""Bytes that S3 copies in one request (its CopyObject)."""
CONNECTIONS = 64
READ_TIMEOUT_S = 60.0
"""Seconds without a byte of the answer, after which a request has failed. S3 may take tens of
seconds to copy or to complete a large object."""
SLOWEST = 256 << 10
"""Bytes per second below which an upload has failed."""
ABANDONED = timedelta(days=1)
"""Seconds after which an unfinished upload counts as abandoned."""
CLIENTS = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "urllib3"}
"""Packages whose exceptions mean the connection, not a mistake in this program."""
LASTING = {
    "AuthorizationHeaderMalformed",
    "EntityTooLarge",
    "InvalidArgument",
    "InvalidBucketName",
    "KeyTooLongError",
    "MethodNotAllowed",
    "NotImplemented",
    "ParamValidationError",
    "PermanentRedirect",
    "301",
    "400",
    "405",
    "501",
}
"""Answers, and names of exceptions, of requests that are wrong in themselves."""
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}


class Driver:
    """The operations as fsspec has them for every file system."""

    package = "fsspec"
    credentials = ""
    """What tells the user how to give credentials."""

    def options(self) -> dict[str, Any]:
        """Arguments of the file system's class."""
        return {"use_listings_cache": False, "skip_instance_cache": True}

    def connect(self, **options: Any) -> Any:
        """A separate file system, with these options overriding ours."""
        return fsspec.filesystem("memory", **(self.options() | options))

    def probe(self, files: Any, root: str) -> None:
        """Ask for at most one name below `root`; raises the service's errors."""

    def write(self, files: Any, path: str, data: bytes) -> bool:
        """Upload; returns whether the service's answer proves that all of it arrived."""
        files.pipe_file(path, data)
        return False

    def put(self, files: Any, local: Path, path: str) -> bool:
        """The same for a local file."""
        files.put_file(str(local), path)
        return False

    def copy(self, files: Any, source: str, target: str, size: int) -> None:
        files.cp_file(source, target)

    def intact(self, files: Any, path: str, content: bytes | Path) -> bool:
        """Whether the object has this content, as far as the service can tell."""
        return int(files.info(path)["size"]) == _size(content)

    def sweep(self, files: Any, root: str) -> list[str]:
        """Abort abandoned uploads below `root`; returns their paths."""
        return []


class S3Driver(Driver):
    """Amazon S3 and what speaks its protocol; the environment names the endpoint."""

    package = "s3fs"
    credentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

    def options(self) -> dict[str, Any]:
        timing = {"connect_timeout": 10.0, "read_timeout": READ_TIMEOUT_S}
        # One reader of a whole object spares a HEAD before each GET.
        return super().options() | {
            "config_kwargs": timing | {"max_pool_connections": CONNECTIONS},
            "max_concurrency": 1,
        }

    def connect(self, **options: Any) -> Any:
        from s3fs import S3FileSystem

        files = S3FileSystem(**(self.options() | options))
        # botocore repeats requests (AWS_MAX_ATTEMPTS), the store whole operations.
        files.retries = 1
        return files

    def probe(self, files: Any, root: str) -> None:
        bucket, _, prefix = root.partition("/")
        files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def write(self, files: Any, path: str, data: bytes) -> bool:
        return self._send(files, path, data)

    def put(self, files: Any, local: Path, path: str) -> bool:
        return self._send(files, path, local)

    def _send(self, files: Any, path: str, content: bytes | Path) -> bool:
        """Upload with a deadline for each request and, whatever happens, nothing left behind.

        s3fs has no limit to how long it sends, and leaves the parts of a cancelled upload.
        """
        bucket, key = _split(path)
        place = {"Bucket": bucket, "Key": key}
        size = _size(content)
        if size < 2 * PART:
            data = content.read_bytes() if isinstance(content, Path) else content
            answer = files.call_s3("put_object", **place, Body=data, timeout=_deadline(size))
            return bool(answer["ETag"].strip('"') == etag(data))
        upload = files.call_s3("create_multipart_upload", **place, timeout=_deadline(0))
        place["UploadId"] = upload["UploadId"]

        def send(start: int) -> dict[str, str | int]:
            part: dict[str, str | int] = {"PartNumber": start // PART + 1}
            body = _part(content, start)
            limit = _deadline(len(body))
            answer = files.call_s3("upload_part", **place, **part, Body=body, timeout=limit)
            return part | {"ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(0, size, PART)))
            files.call_s3("complete_multipart_upload", **place, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):
                files.call_s3("abort_multipart_upload", **place, timeout=_deadline(0))
            raise
        return False

    def copy(self, files: Any, source: str, target: str, size: int) -> None:
        if size > COPY_LIMIT:
            super().copy(files, source, target, size)
            return
        (from_bucket, from_key), (bucket, key) = _split(source), _split(target)
        place = {"Bucket": from_bucket, "Key": from_key}
        files.call_s3("copy_object", Bucket=bucket, Key=key, CopySource=place)

    def intact(self, files: Any, path: str, content: bytes | Path) -> bool:
        info = files.info(path)
        if int(info["size"]) != _size(content):
            return False
        if info["ETag"].strip('"') == etag(content):
            return True
        bucket, key = _split(path)
        head = files.call_s3("head_object", Bucket=bucket, Key=key)
        # With customer keys or KMS the ETag is not an MD5 of the content.
        return "SSECustomerAlgorithm" in head or "kms" in head.get("ServerSideEncryption", "")

    def sweep(self, files: Any, root: str) -> list[str]:
        bucket, _, prefix = root.partition("/")
        marker: dict[str, str] = {}
        removed = []
        while True:
            below = f"{prefix}/" if prefix else ""
            page = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=below, **marker)
            for upload in page.get("Uploads", []):
                if datetime.now(UTC) - upload["Initiated"] > ABANDONED:
                    files.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    removed.append(f"{bucket}/{upload['Key']}")
            if not page.get("IsTruncated"):
                return removed
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }


class GcsDriver(Driver):
    """Google Cloud Storage."""

    package = "gcsfs"
    credentials = "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"

    def connect(self, **options: Any) -> Any:
        # The class that gcsfs registers with fsspec first asks Google's control API about each
        # bucket.
        from gcsfs.core import GCSFileSystem

        # It logs the trace of every failure, which the store reports in a sentence.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        return GCSFileSystem(**(self.options() | options))

    def probe(self, files: Any, root: str) -> None:
        bucket, _, prefix = root.partition("/")
        files.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=1, json_out=True)

    def put(self, files: Any, local: Path, path: str) -> bool:
        files.put_file(str(local), path, chunksize=PART, timeout=_deadline(_size(local)))
        return False

    def write(self, files: Any, path: str, data: bytes) -> bool:
        files.pipe_file(path, data, timeout=_deadline(len(data)))
        return False

    def intact(self, files: Any, path: str, content: bytes | Path) -> bool:
        info = files.info(path)
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        for block in _blocks(content):
            digest.update(block)
            size += len(block)
        stored = info.get("md5Hash")
        return int(info["size"]) == size and (
            stored is None or base64.b64decode(stored) == digest.digest()
        )


DRIVERS: dict[str, Driver] = {"s3": S3Driver(), "gs": GcsDriver(), "memory": Driver()}
"""By the URL's scheme."""


def etag(content: bytes | Path) -> str:
    """The ETag that S3 gives to content that was uploaded as `S3Driver` does: the MD5 in hex,
    or for a multipart upload that of the parts' MD5s and the number of parts."""
    if _size(content) < 2 * PART:
        data = content.read_bytes() if isinstance(content, Path) else content
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    parts = [hashlib.md5(part, usedforsecurity=False).digest() for part in _blocks(content)]
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def is_passing(error: Exception) -> bool:
    """Whether the same operation may succeed later."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in CLIENTS


def is_lasting(error: Exception) -> bool:
    """Whether the service, or its client, will fail in the same way in every attempt."""
    return code(error) in LASTING or type(error).__name__ in LASTING


def is_refused(error: Exception) -> bool:
    """Whether the service says that these credentials may not do this."""
    if isinstance(error, PermissionError) or code(error) in {"401", "403"}:
        return True
    # gcsfs has no type of its own for a 403.
    return isinstance(error, OSError) and str(error).startswith("Forbidden")


def code(error: Exception) -> str:
    """The service's name or number of an error; empty if it gave none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if each is not None and type(each).__module__.startswith("gcsfs"):
            return str(getattr(each, "code", None) or "")
    return ""


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _deadline(size: int) -> float:
    """Seconds within which a number of bytes must have been sent and answered."""
    return READ_TIMEOUT_S + size / SLOWEST


def _part(content: bytes | Path, start: int) -> bytes:
    if isinstance(content, Path):
        with content.open("rb") as file:
            file.seek(start)
            return file.read(PART)
    return content[start : start + PART]


def _blocks(content: bytes | Path) -> Iterator[bytes]:
    for start in range(0, _size(content), PART):
        yield _part(content, start)
