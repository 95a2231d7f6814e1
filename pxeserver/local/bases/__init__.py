"""Base images from the distribution's packages: downloaded and unpacked, never installed.

`recipe` says what goes into an image, `apt` finds and fetches packages, `lock` records the exact set, `deb` unpacks,
`tree` and `kernel` lay out the files, `make` writes OCI images into the store. What runs inside is under `files/`.
"""
