"""A finished run as a folder that transformers opens: AutoModel…, AutoTokenizer and pipeline, with outputs
equal to ours.
"""
