"""The system user a server runs as. Postgres refuses to run as root, so root starts it as somebody else."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ..schemas.errors import ConfigurationError
from .processes import wait_until

#: The account that root creates to run Postgres.
USER_NAME = "creditlane-postgres"
#: Where no account can be created (no useradd, a read-only /etc), the one that every system has.
FALLBACK_USER_NAME = "nobody"
#: How long to wait for another process that holds the lock of the user database, in seconds.
USER_DEADLINE_SECONDS = 10.0


class ChildIdentity(TypedDict, total=False):
    """The arguments that make `subprocess` start a child as another user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Whom a server runs as; ``switched`` when that is not the user of this process."""

    uid: int
    gid: int
    switched: bool

    def child_identity(self) -> ChildIdentity:
        if not self.switched:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, directory: Path) -> None:
        """Give a directory to the user."""
        if self.switched:
            os.chown(directory, self.uid, self.gid)


def server_user(data_dir: Path) -> ServerUser:
    """Return the user for the data directory: its owner if it exists, else this user, or for root one made for it.

    Raises `ConfigurationError` when the directory belongs to somebody else and this process is not root.
    """
    effective = os.geteuid()
    owner = data_dir.stat() if data_dir.exists() else None
    if effective != 0:
        if owner is not None and owner.st_uid != effective:
            raise ConfigurationError(f"{data_dir} belongs to user {owner.st_uid}; run as that user, or remove it")
        return ServerUser(effective, os.getegid(), switched=False)
    if owner is not None and owner.st_uid != 0:
        return ServerUser(owner.st_uid, owner.st_gid, switched=True)
    account = _account()
    return ServerUser(account.pw_uid, account.pw_gid, switched=True)


def _account() -> pwd.struct_passwd:
    """Return the account for Postgres, created if need be; several processes may be at it at once."""
    useradd = shutil.which("useradd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if _find(USER_NAME) is None and useradd is not None:
        wait_until(lambda: _created(useradd), seconds=USER_DEADLINE_SECONDS)
    account = _find(USER_NAME) or _find(FALLBACK_USER_NAME)
    if account is None:
        raise ConfigurationError("Postgres cannot run as root and no user could be made for it; run as a normal user")
    return account


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _created(useradd: str) -> bool:
    """Try to create the account; False while another process holds the lock of the user database."""
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/bin/false"]
    result = subprocess.run([*command, USER_NAME], capture_output=True, check=False)
    busy = 1  # useradd(8): cannot update the password file
    return result.returncode != busy or _find(USER_NAME) is not None
