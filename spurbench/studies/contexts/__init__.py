"""Recontextualisation (the paper's Fig. 5): is a subject that is put elsewhere as spurious?"""
