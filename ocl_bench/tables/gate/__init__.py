"""The gate: did a number fall?"""
