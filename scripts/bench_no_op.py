"""Make a workspace in which every stage of the default matrix is up to date, without running one.

    python -m scripts.bench_no_op

Run by `scripts.bench` in a scratch copy, as what `dvc repro` takes when there is nothing to do does
not depend on what is in the outputs: DVC looks at their number, sizes and times.
"""

from pathlib import Path

from dvc.repo import Repo


def make_outputs(paths: list[Path]) -> None:
    """Write a file for each path, and a folder with a file for those without a suffix."""
    for path in paths:
        file = path if path.suffix else path / "file"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{path}\n", "utf-8")


def main() -> None:
    """Write all outputs and have DVC take them for the stages'."""
    with Repo() as repo:
        make_outputs([Path(out.fs_path).relative_to(repo.root_dir) for out in repo.index.outs])
        repo.commit(force=True)


if __name__ == "__main__":
    main()
