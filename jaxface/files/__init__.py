"""Bytes, no faces: files that appear whole, pictures, meshes, arrays, and pickles that cannot run anything."""
