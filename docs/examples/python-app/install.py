"""Stands for a package manager: reads requirements.txt, writes the packages it names."""

import pathlib

for line in pathlib.Path("requirements.txt").read_text().split():
    name, _, version = line.partition("==")
    package = pathlib.Path("packages") / name
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(
        f'version = "{version}"\n\n\ndef hello(name):\n    return f"Hello, {{name}}!"\n'
    )
    print("installed", name, version)
