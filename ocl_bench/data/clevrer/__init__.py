"""CLEVRER (Yi et al., ICLR 2020, arXiv:1910.01442): facts of a video, programs, questions and their files."""
