"""Get official data: what there is, downloads that resume, archives that are unpacked safely."""
