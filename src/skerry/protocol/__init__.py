"""Wire formats: encoders and decoders of every protocol, without I/O."""
