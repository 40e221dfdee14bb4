"""Is a result what its rows say?"""
