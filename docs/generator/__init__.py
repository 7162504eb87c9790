"""The pages and diagrams that are made from the code: `python -m docs.generator` writes them. A test says if one is old."""
