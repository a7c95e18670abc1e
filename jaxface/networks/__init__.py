"""Networks in Flax: encoders from an image to face coefficients, face recognition, face parsing; and their weights.

Nothing is imported here: Flax comes with the extras, and `face_recognition` and `weight_files` can be imported without.
"""
