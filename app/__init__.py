"""Faces: the command line. (It is the only package that prints.)"""
