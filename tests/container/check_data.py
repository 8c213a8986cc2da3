"""Inside an image: every file of the package is the one built, and weights are those of the card.

``pip`` leaves the SHA-256 of each file it installs; a model card holds that of its weights.
"""

import base64
import hashlib
from importlib.metadata import files

from bids_muscle.segmentation.bundle import CARD, load_networks, read_bundle
from bids_muscle.segmentation.catalogue import packaged_models

checked = 0
for file in files('bids_muscle') or []:
    if file.hash is not None and '/data/' in str(file):
        digest = hashlib.sha256(file.read_binary()).digest()
        found = base64.urlsafe_b64encode(digest).rstrip(b'=').decode()
        assert found == file.hash.value, file
        checked += 1
models = [read_bundle(card.parent) for card in sorted(packaged_models().glob(f'*/{CARD}'))]
for model in models:
    load_networks(model)
assert checked and models
print(f'{checked} data files and {len(models)} models have their checksums')
