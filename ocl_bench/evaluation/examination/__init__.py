"""Is a finished result what its rows and its cards say?"""
