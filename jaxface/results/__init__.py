"""What users get: files, pages and pictures of photos, persons and clips, and the work that fills them."""
