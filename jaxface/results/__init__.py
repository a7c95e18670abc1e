"""What reconstructions leave: pictures, textures, meshes, pages and records, of photos, persons and clips."""
