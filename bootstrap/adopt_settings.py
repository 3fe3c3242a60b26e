"""The settings with which a person declares that a living cluster is to be taken over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.model.node import Address
from bootstrap.model.old_side import Adoption
from bootstrap.setting_types import (
    Secret,
    cluster_fingerprint,
    on_or_off,
    printable_text,
    readable_file,
    setting,
    source_addresses,
)


@dataclass(frozen=True, kw_only=True)  # without slots: `Settings` has several bases
class AdoptSettings:
    """Settings about the cluster that is taken over."""

    adopt_from: tuple[Address, ...] = setting(
        (),
        source_addresses,
        "living cluster to take over: HOST:PORT of some of its nodes, or of its headless Service, separated by commas",
        shown="none",
        names=("ADOPT", "--adopt-from"),
    )
    adopt: str = setting(
        "",
        cluster_fingerprint,
        "fingerprint of that cluster, as plan shows it: the pods may join it",
        shown="none: report what would be taken over",
        names=("ADOPT_FINGERPRINT", "--adopt"),
    )
    adopt_back: bool = setting(
        default=False, read=on_or_off, help_text="on or off: give the cluster back to its old nodes", shown="off"
    )
    adopt_finish: bool = setting(
        default=False,
        read=on_or_off,
        help_text="on or off: take the old nodes out of the cluster; their disks keep the data",
        shown="off",
    )
    adopt_username: str = setting(
        "", printable_text, "Redis ACL user of the old cluster, where it differs", shown="the same"
    )
    adopt_password_file: Path | None = setting(
        None, readable_file, "file that contains the password of the old cluster, where it differs", shown="the same"
    )
    adopt_password: Secret | None = field(default=None, repr=False)
    """The content of `adopt_password_file`."""

    @property
    def adoption(self) -> Adoption | None:
        """What is declared about taking over a cluster; None where none is named."""
        declared = Adoption(fingerprint=self.adopt, back=self.adopt_back, finish=self.adopt_finish)
        return declared if self.adopt_from else None
