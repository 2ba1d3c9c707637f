"""A stack knows its own servers again, in whatever environment it is started."""

from pathlib import Path

import pytest

from creditlane import Settings
from creditlane.local.embedded_urls import URLS_NAME, keep_own, without_own
from creditlane.local.stack_record import make_data_directory
from creditlane.local.trusted_paths import UntrustedPath

OWN = Settings(
    database_url="postgresql://client@:5432/d?host=/own",
    operator_database_url="postgresql://owner@:5432/d?host=/own",
    redis_url="unix:///own/redis.sock?db=0",
)
OTHER = Settings(database_url="postgresql://h/d", operator_database_url="postgresql://o@h/d", redis_url="redis://h/0")


def urls_of(settings: Settings) -> list[str | None]:
    return [settings.database_url, settings.operator_database_url, settings.redis_url]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / ".creditlane"
    make_data_directory(path)
    return path


def keep(data_dir: Path) -> None:
    keep_own(data_dir, frozenset(url for url in urls_of(OWN) if url))


def test_the_urls_of_an_earlier_start_are_left_out_and_all_others_stay(data_dir: Path) -> None:
    assert without_own(OWN, data_dir) == OWN

    keep(data_dir)

    assert urls_of(without_own(OWN, data_dir)) == [None, None, None]
    assert without_own(OTHER, data_dir) == OTHER
    mixed = OWN.model_copy(update={"redis_url": OTHER.redis_url})
    assert urls_of(without_own(mixed, data_dir)) == [None, None, OTHER.redis_url]


def test_what_is_kept_is_for_its_user_alone(data_dir: Path) -> None:
    keep(data_dir)
    path = data_dir / URLS_NAME
    assert path.stat().st_mode & 0o777 == 0o600

    path.chmod(0o622)

    with pytest.raises(UntrustedPath):
        without_own(OWN, data_dir)


def test_what_cannot_be_read_names_no_server(data_dir: Path) -> None:
    (data_dir / URLS_NAME).write_text("[1")
    (data_dir / URLS_NAME).chmod(0o600)

    assert without_own(OWN, data_dir) == OWN
