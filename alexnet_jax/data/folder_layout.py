"""What the subfolders of a folder of pictures mean: classes, or splits that contain classes."""

from dataclasses import dataclass
from pathlib import Path

from alexnet_jax.data.picture_files import subfolders
from alexnet_jax.errors import UsageError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""{split: names of its folder, in upper or lower case}"""


@dataclass(frozen=True)
class Layout:
    """Which folders contain the classes of each split."""

    train: Path
    validation: Path | None
    """None: --data.validation pictures of the training split are held out."""
    test: Path | None
    """None: a share of the training pictures is kept for the test."""
    unused: tuple[str, ...] = ()
    """Names of the other folders next to those of the splits."""

    def sentences(self) -> list[str]:
        """Return sentences on what is not obvious from the names."""
        lines = []
        if self.test is not None and split_of(self.test.name) == "validation":
            lines.append(f"{self.test.name}/ is used for the test, because there is no test/.")
        if self.unused:
            lines.append(f"Not used: {', '.join(self.unused)}.")
        return lines


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for, None if it is the name of a class."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def read(root: Path) -> Layout:
    """Return the layout of a folder. Raises UsageError when it can be understood in two ways."""
    folders = subfolders(root)
    splits: dict[str, Path] = {}
    for folder in folders:
        split = split_of(folder.name)
        if split in splits:
            raise UsageError(
                f"--data.dir={root}: {splits[split].name}/ and {folder.name}/ both stand for the {split} split. Keep one, or "
                "give the folder that contains the classes."
            )
        if split is not None:
            splits[split] = folder
    others = [folder for folder in folders if folder not in splits.values()]
    if not splits or _is_class(splits, others):
        return Layout(root, None, None)
    if "train" not in splits:
        raise UsageError(
            f"--data.dir={root}: expected train/ next to {_listed(splits)}. If that is a class, rename it."
        )
    for split, folder in splits.items():
        if not subfolders(folder):
            raise UsageError(
                f"--data.dir={root}: {folder.name}/ stands for the {split} split, but it contains no folder for each class."
                + (" If it is a class, rename it." if others else "")
            )
    test = splits.get("test")
    validation = splits.get("validation") if test else None
    unused = tuple(f"{folder.name}/" for folder in others)
    return Layout(splits["train"], validation, test or splits.get("validation"), unused)


def _is_class(splits: dict[str, Path], others: list[Path]) -> bool:
    """Return whether `train` is a class next to other classes, such as bus and car."""
    return list(splits) == ["train"] and bool(others) and not subfolders(splits["train"])


def _listed(splits: dict[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in splits.values())
