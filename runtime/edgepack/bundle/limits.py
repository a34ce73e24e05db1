"""How much of everything a reader is willing to look at. All of it is in docs/bundle-format.md."""

MAX_BLOB_BYTES = 8 * 1024**3 - 1  # what eleven octal digits of a tar header can say
MAX_BUNDLE_BYTES = 16 * 1024**3
MAX_INDEX_BYTES = 64 * 1024
MAX_MANIFEST_BYTES = 1024**2
MAX_CONFIG_BYTES = 1024**2
MAX_CONTRACT_BYTES = 4 * 1024**2
MAX_LAYERS = 1024
MAX_SIGNATURES = 16
# oci-layout, index, manifest, config, layers; manifest and envelope a signature; the empty blob
MAX_MEMBERS = 4 + MAX_LAYERS + 2 * MAX_SIGNATURES + 1
CHUNK_BYTES = 1024**2
