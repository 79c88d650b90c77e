"""The members of a tar that belong together."""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import dataclass, field

from jaxphoton.batch.sources.item import IMAGE_SUFFIXES


@dataclass(slots=True)
class Sample:
    """The members of one name.

    Attributes:
      name: of the sample.
      run: all of them in the order of the tar, with hidden ones and folders between them. A link to a member is a
        file with that member's data.
      members: extension ("jpg", "seg.png", in lower case) -> the file.
      dangling: extensions of links to nothing in the tar.
      apart: the tar has more of this sample elsewhere, which could not be put together with it.
    """

    name: str
    run: list[tarfile.TarInfo] = field(default_factory=list)
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    dangling: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    apart: bool = False

    def image(self, asked: str | None) -> str | None:
        """The extension of the image, None where there is none."""
        found = self.members | self.dangling
        if asked is not None:
            return asked if asked in found else None
        images = [name for name in found if f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES]
        return min(images, key=lambda name: name.count("."), default=None)

    def add(self, member: tarfile.TarInfo) -> None:
        self.run.append(member)
        extension = split_name(member.name)[1]
        if is_sample_file(member):
            self.members[extension] = member
        elif is_link(member) and not is_hidden(member):
            self.dangling[extension] = member

    def update(self, later: Sample) -> bool:
        """Takes in members that come again, as unpacking the tar does: the last of a name is the one that stays.

        Returns:
          whether it has: not an image that comes again, and no other file (of another case) under the same extension.
        """
        if later.image(None) is not None:
            return False
        replaced = [(old, new) for end, new in later.members.items() if (old := self.members.get(end)) is not None]
        if any(posixpath.normpath(old.name) != posixpath.normpath(new.name) for old, new in replaced):
            return False
        self.run = [member for member in self.run if not any(member is old for old, _ in replaced)]
        for member in later.run:
            self.add(member)
        return True


def split_name(member: str) -> tuple[str, str]:
    """ "./a/b.seg.PNG" -> ("a/b", "seg.png")."""
    folder, _, base = posixpath.normpath(member).rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def is_sample_file(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file of a sample: not hidden."""
    return member.isreg() and not is_hidden(member)


def is_hidden(member: tarfile.TarInfo) -> bool:
    return posixpath.basename(member.name).startswith(".")


def is_link(member: tarfile.TarInfo) -> bool:
    return member.islnk() or member.issym()
