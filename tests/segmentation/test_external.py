"""Models of MuscleMap and MONAI, built on the spot with small random or trained weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from scipy.ndimage import zoom

import bids_muscle
from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import BadDataError, ModelError
from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.external import convert_external
from bids_muscle.segmentation.predictor import Predictor

MakeScan = Callable[..., tuple[nib.Nifti1Image, np.ndarray]]
MUSCLES = ('multifidus', 'erector spinae', 'psoas major', 'quadratus lumborum')
SIDED = [(muscle, side) for muscle in MUSCLES for side in ('right', 'left')]


def musclemap(folder: Path, network: torch.nn.Module | None = None, **parameters: Any) -> Path:
    """Write a MuscleMap model as in its repository; the values are codes, not classes."""
    folder.mkdir(exist_ok=True)
    shape = {
        'spatial_dims': 2,
        'in_channels': 1,
        'out_channels': 9,
        'channels': [4, 8],
        'strides': [2],
        'act': 'LeakyReLU',
        'num_res_units': 1,
    }
    network = network or UNet(**shape, norm='INSTANCE')
    # Out of order, and a region in front, as in the whole-body model.
    labels = [
        {'region': 'abdomen', 'anatomy': muscle, 'side': side, 'value': 5100 + 10 * place}
        for place, (muscle, side) in enumerate(SIDED)
    ]
    card = {
        'parameters': {'roi_size': [32, 32], 'pix_dim': [2, 2, -1], **parameters},
        'model': {**shape, 'norm': 'instance'},
        'labels': labels[::-1],
    }
    (folder / 'abdomen.json').write_text(json.dumps(card))
    torch.save(network.state_dict(), folder / 'abdomen.pth')
    return folder / 'abdomen.pth'


UNET = {
    '_target_': 'UNet',
    'spatial_dims': 3,
    'in_channels': 1,
    'out_channels': 3,
    'channels': [4, 8],
    'strides': [2],
    'num_res_units': 1,
}
#: Deeper than any reference goes.
ENDLESS: Any = 1
for _ in range(150):
    ENDLESS = [ENDLESS]


def monai_bundle(folder: Path, **changes: Any) -> Path:
    """Write a MONAI bundle with a network in 3-D."""
    network = {k: value for k, value in UNET.items() if k != '_target_'}
    inference = {
        'imports': ['$import os'],
        'output_dir': '$os.getcwd()',
        'patch': [16, 16, 4],
        'network_def': {'_target_': 'UNet', **network},
        'preprocessing': {
            '_target_': 'Compose',
            'transforms': [
                {'_target_': 'LoadImaged', 'keys': '@image_key'},
                {'_target_': 'Orientationd', 'keys': 'image', 'axcodes': 'RAS'},
                {'_target_': 'Spacingd', 'keys': 'image', 'pixdim': [2.0, 2.0, 5.0]},
                {'_target_': 'NormalizeIntensityd', 'keys': 'image', 'nonzero': True},
            ],
        },
        'inferer': {
            '_target_': 'SlidingWindowInferer',
            'roi_size': '@patch',
            'device': '$torch.device(0)',
        },
        **changes,
    }
    names = {'0': 'background', '1': 'Erector_spinae_L', '2': 'R erector spinae'}
    formats = {'inputs': {'image': {}}, 'outputs': {'pred': {'channel_def': names}}}
    (folder / 'configs').mkdir(parents=True)
    (folder / 'models').mkdir()
    (folder / 'configs/inference.json').write_text(json.dumps(inference))
    metadata = {'version': '1.2', 'network_data_format': formats}
    (folder / 'configs/metadata.json').write_text(json.dumps(metadata))
    torch.save({'model': UNet(**network).state_dict()}, folder / 'models/model.pt')
    return folder


def test_sides_and_classes_of_musclemap(tmp_path: Path) -> None:
    model = load_model(find_model(str(musclemap(tmp_path)), 'lumbar'))
    assert model.numbers == (0, *range(5100, 5180, 10))
    assert model.mirrored == (0, 2, 1, 4, 3, 6, 5, 8, 7)
    assert model.postprocess == ('largest-faces',)


#: Structures and codes of MuscleMap's whole-body cards: the first ones, and those of today.
FIRST = {'multifidus': 1110, 'levator': 1100, 'multifidus ': 5100, 'erector spinae': 5110}
TODAY = {
    'semispinalis cervicis and multifidus': 1110,
    'longus colli': 1150,
    'thoracolumbar multifidus': 5100,
    'psoas major': 5120,
    'gluteus maximus': 6120,
}


def whole_body(folder: Path, structures: dict[str, int]) -> Path:
    """Write a MuscleMap model whose labels have codes: structure, then 1 left or 2 right."""
    labels = [
        {'anatomy': anatomy.strip(), 'side': side, 'value': code + place}
        for anatomy, code in structures.items()
        for place, side in enumerate(('left', 'right'), start=1)
    ]
    labels.append({'anatomy': 'sacrum', 'side': 'no side', 'value': 6160})
    path = musclemap(folder)
    card = json.loads(path.with_suffix('.json').read_text())
    card['model'] |= {'out_channels': len(labels) + 1, 'version': 1.2}
    path.with_suffix('.json').write_text(json.dumps({**card, 'labels': labels}))
    return path


@pytest.mark.parametrize(
    ('structures', 'region', 'found'),
    [
        (FIRST, 'lumbar', {5101: 2, 5102: 1, 5111: 4, 5112: 3}),
        (FIRST, 'cervical', {1101: 14, 1102: 13, 1111: 2, 1112: 1}),
        (TODAY, 'lumbar', {5101: 2, 5102: 1, 5121: 6, 5122: 5}),
        (TODAY, 'cervical', {1111: 2, 1112: 1, 1151: 4, 1152: 3}),
    ],
)
def test_codes_and_synonyms_of_the_whole_body(
    tmp_path: Path, structures: dict[str, int], region: str, found: dict[int, int]
) -> None:
    bundle = find_model(str(whole_body(tmp_path, structures)), region)
    codes = sorted([*(c + side for c in structures.values() for side in (1, 2)), 6160])
    assert bundle.card['numbers'] == [0, *codes]
    assert bundle.version == '1.2'
    assert (bundle.region, bundle.labels.segmentation) == (region, 'abdomen')
    # The same muscle has one name, and is expected where it lies; all others are kept, too.
    ours = load_label_table(region)
    assert bundle.labels.numbers_in(ours) == found
    assert {label.index for label in bundle.labels if label.expected} == set(found)
    assert [label.index for label in bundle.labels] == codes
    assert {label.index for label in bundle.unlabelled} == set(ours.by_index) - set(found.values())
    lacks, *renamed = bundle.remarks()
    assert bundle.unlabelled[0].name in lacks
    if 'thoracolumbar multifidus' in structures:
        assert 'left thoracolumbar multifidus is left multifidus' in renamed[0]


def test_structures_keep_their_sides_and_kinds(tmp_path: Path) -> None:
    path = str(whole_body(tmp_path, TODAY))
    labels = {label.index: label for label in find_model(path, 'pelvis').labels}
    sacrum, gluteus = labels[6160], labels[6122]
    assert (sacrum.name, sacrum.side, sacrum.kind) == ('sacrum', 'unsided', 'bone')
    assert (gluteus.name, gluteus.side, gluteus.expected) == (
        'right gluteus maximus',
        'right',
        True,
    )
    colours = [label.color for label in labels.values()]
    assert len(set(colours)) == len(colours)
    with pytest.raises(ModelError, match='none of them is a structure of the thigh region'):
        find_model(path, 'thigh')


@pytest.mark.parametrize('code', [0, 40000])
def test_codes_that_a_label_map_cannot_hold_are_refused(tmp_path: Path, code: int) -> None:
    path = whole_body(tmp_path, TODAY)
    card = json.loads(path.with_suffix('.json').read_text())
    card['labels'][0]['value'] = code
    path.with_suffix('.json').write_text(json.dumps(card))
    with pytest.raises(ModelError, match='from 1 to 32767'):
        find_model(str(path), 'body')


def test_the_other_side_of_numbered_structures(tmp_path: Path) -> None:
    folder = monai_bundle(tmp_path / 'zoo', network_def=UNET | {'out_channels': 5})
    names = ['background', 'rib_left_1', 'rib_left_2', 'rib_right_1', 'rib_right_2']
    metadata = json.loads((folder / 'configs/metadata.json').read_text())
    metadata['network_data_format']['outputs']['pred']['channel_def'] = dict(
        zip('01234', names, strict=True)
    )
    (folder / 'configs/metadata.json').write_text(json.dumps(metadata))
    network = {key: value for key, value in UNET.items() if key != '_target_'}
    torch.save(UNet(**network | {'out_channels': 5}).state_dict(), folder / 'models/model.pt')
    assert load_model(find_model(str(folder), 'body')).mirrored == (0, 3, 4, 1, 2)


def test_a_model_with_all_muscles_and_no_others_needs_no_remark(tmp_path: Path) -> None:
    assert find_model(str(musclemap(tmp_path)), 'lumbar').remarks() == []


def test_two_classes_of_one_muscle_are_refused(tmp_path: Path) -> None:
    structures = {'multifidus': 5100, 'thoracolumbar multifidus': 5150}
    with pytest.raises(ModelError, match='same structure left multifidus: left multifidus, left'):
        find_model(str(whole_body(tmp_path, structures)), 'lumbar')


def test_other_names_of_the_classes_make_another_model_of_it(tmp_path: Path) -> None:
    folder = monai_bundle(tmp_path / 'net')
    names = folder / 'configs/metadata.json'
    before = find_model(str(folder), 'lumbar')
    text = names.read_text()
    # The sides were exchanged, and somebody mends it: earlier results do not count any more.
    swapped = text.replace('Erector_spinae_L', 'erector spinae R').replace('"R er', '"L er')
    names.write_text(swapped)
    after = find_model(str(folder), 'lumbar')
    assert [label.side for label in before.labels] == ['left', 'right']
    assert [label.side for label in after.labels] == ['right', 'left']
    assert after.card != before.card
    names.write_text(text.replace('R erector', 'L erector'))
    with pytest.raises(ModelError, match=r'Rename those .* in .*metadata\.json'):
        find_model(str(folder), 'lumbar')


def slope(shape: tuple[int, int, int], zooms: tuple[float, float, float]) -> nib.Nifti1Image:
    """Give an image that grows brighter from left to right, so that classes are large pieces."""
    bright = np.arange(1, shape[0] + 1, dtype=np.float32)[:, None, None] ** 3
    return nib.Nifti1Image(np.tile(bright, (1, *shape[1:])), np.diag([*zooms, 1.0]))


def test_the_first_image_is_that_of_the_command_in_any_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    water = slope((40, 36, 3), (2, 2, 4))
    fat = nib.Nifti1Image(np.asarray(water.dataobj)[::-1], water.affine)
    how = {'region': 'lumbar', 'model': musclemap(tmp_path), 'model_overlap': 0.0}
    one, other = (
        np.asarray(bids_muscle.segment(images, **how).dataobj)
        for images in ({'water': water, 'fat': fat}, {'fat': fat, 'water': water})
    )
    assert len(np.unique(one)) > 1
    assert np.array_equal(one, other)


def test_a_sagittal_scan_given_for_an_axial_one_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    how = {'region': 'lumbar', 'model': musclemap(tmp_path), 'model_overlap': 0.0}
    with pytest.warns(UserWarning, match='The slices are sagittal'):
        bids_muscle.segment({'T2w': slope((12, 40, 6), (5, 2, 2))}, **how)


def test_a_label_map_in_floating_point_is_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(
        np.random.default_rng(0).uniform(1, 9, (40, 36, 3)).astype('f4'), np.diag([2.0, 2, 4, 1])
    )
    drawn = np.zeros(image.shape, 'f4')
    drawn[5:15, 10:20], drawn[20:30, 10:20] = 5100, 5110
    how = {'region': 'lumbar', 'model': musclemap(tmp_path)}
    found = bids_muscle.measure({'T2w': image}, nib.Nifti1Image(drawn, image.affine), **how)
    sizes = dict(zip(found['name'], found['volume_ml'], strict=True))
    assert sizes['left multifidus'] == sizes['right multifidus'] == pytest.approx(4.8)
    with pytest.raises(BadDataError, match='not whole'):
        bids_muscle.measure({'T2w': image}, nib.Nifti1Image(drawn / 3, image.affine), **how)


def test_the_two_files_belong_together(tmp_path: Path) -> None:
    path = musclemap(tmp_path)
    for name in (path, path.with_suffix('.json'), tmp_path):
        assert find_model(str(name), 'lumbar').weights == (path,)
    before = find_model(str(path), 'lumbar').sha256
    path.write_bytes(path.read_bytes() + b' ')
    assert find_model(str(path), 'lumbar').sha256 != before
    path.with_suffix('.json').unlink()
    with pytest.raises(ModelError, match=r'github.com/MuscleMap/MuscleMap'):
        find_model(str(path), 'lumbar')


@pytest.mark.parametrize('make', [musclemap, monai_bundle])
def test_converted_weights_give_the_same_network(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """Weights keep their bytes; a copy without a single pickle takes the place of the model."""
    path = make(tmp_path / 'model')
    path = path.parent if path.is_file() else path
    before = load_model(find_model(str(path), 'lumbar')).networks[0].state_dict()
    checksum = convert_external(path)
    assert {each.suffix for each in path.rglob('*') if each.is_file()} == {'.json', '.safetensors'}
    bundle = find_model(str(path), 'lumbar')
    assert bundle.sha256 == checksum
    after = load_model(bundle).networks[0].state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert convert_external(path) == checksum


def test_weights_are_converted_only_if_they_fit(tmp_path: Path) -> None:
    path = musclemap(tmp_path / 'other', UNet(2, 1, 9, (4, 8), (2,)))
    with pytest.raises(ModelError, match='cannot be loaded'):
        convert_external(path)
    assert path.exists()
    assert not path.with_suffix('.safetensors').exists()


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    path = musclemap(tmp_path / 'mm')
    path.unlink()
    with pytest.raises(ModelError, match=r'abdomen.pth are missing.*releases'):
        find_model(str(path), 'lumbar')
    folder = monai_bundle(tmp_path / 'bundle')
    (folder / 'models/model.pt').unlink()
    with pytest.raises(ModelError, match=r'model.pt are missing.*model-zoo'):
        find_model(str(folder), 'lumbar')


def test_a_model_of_another_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='none of them is a structure of the cervical region'):
        find_model(str(musclemap(tmp_path)), 'cervical')


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, 'harm')


def test_weights_that_hold_a_program_are_not_run(tmp_path: Path) -> None:
    path = musclemap(tmp_path / 'mm')
    path.write_bytes(pickle.dumps(Harm(tmp_path / 'harm')))
    torch.save({'a': Harm(tmp_path / 'harm')}, path)
    with pytest.raises(ModelError, match='plain tensors'):
        load_model(find_model(str(path), 'lumbar'))
    assert not (tmp_path / 'harm').exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = musclemap(tmp_path, UNet(2, 1, 9, (4, 8), (2,)))
    with pytest.raises(ModelError, match=r'abdomen.pth cannot be loaded') as caught:
        load_model(find_model(str(path), 'lumbar'))
    assert len(str(caught.value)) < 900
    assert '\n' not in str(caught.value)


def test_monai_bundle(tmp_path: Path, make_scan: MakeScan) -> None:
    bundle = find_model(str(monai_bundle(tmp_path / 'zoo')), 'lumbar')
    assert (bundle.name, bundle.version) == ('zoo', '1.2')
    model = load_model(bundle)
    assert model.numbers == (0, 1, 2)
    assert [label.name for label in bundle.labels] == [
        'left erector spinae',
        'right erector spinae',
    ]
    assert model.mirrored == (0, 2, 1)
    assert (model.procedure.window, model.procedure.planes_last) == ((4, 16, 16), True)
    image, _ = make_scan((60, 48, 5))
    found = Predictor(model, tta=True).segment({'T2w': image})
    assert set(np.unique(found.labels.dataobj)) <= {0, 1, 2}


@pytest.mark.parametrize(
    'change',
    [
        {'network_def': '$print(1)'},
        {'network_def': {'_target_': 'os.system', 'command': 'true'}},
        {'network_def': {'_target_': 'UNet', 'channels': '$[4, 8]'}},
        {'preprocessing': {'transforms': [{'_target_': 'Lambdad', 'func': '$lambda x: x'}]}},
        {'preprocessing': 3},
        {'network_def': None},
        {'network_def': '@a', 'a': '@b', 'b': '@a'},
        {'network_def': '@a', **{a: [f'@{b}', f'@{b}'] for a, b in pairwise('abcdefghijklmnopq')}},
        {'network_def': ENDLESS},
        {'network_def': UNET | {'channels': [4, 10**9]}},
        {'network_def': UNET | {'num_res_units': 10**6}},
        {'network_def': UNET | {'out_channels': 2}},
        {'inferer': {'_target_': 'SlidingWindowInferer', 'roi_size': [16, 16, 4], 'overlap': 1}},
        {'inferer': {'_target_': 'SlidingWindowInferer', 'roi_size': [16, -1, 4]}},
        {'inferer': {'_target_': 'os.system'}},
        *(
            {'preprocessing': {'transforms': [{'_target_': 'Spacingd', 'pixdim': [1, 1, mm]}]}}
            for mm in (0, -2, float('nan'), float('inf'), 1e-9)
        ),
    ],
)
def test_a_bundle_that_would_execute_something_or_cannot_be_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match='no code of a bundle is executed'):
        find_model(str(monai_bundle(tmp_path / 'zoo', **change)), 'lumbar')


def bundle_with(folder: Path, **changes: Any) -> Any:
    """Load the model of a MONAI bundle."""
    return load_model(find_model(str(monai_bundle(folder, **changes)), 'lumbar'))


#: Before and after the network, in bundles of the model zoo.
BEFORE = [
    {'_target_': 'LoadImaged', 'keys': 'image'},
    {'_target_': 'EnsureChannelFirstd', 'keys': 'image'},
    {'_target_': 'Orientationd', 'keys': 'image', 'axcodes': 'RAS'},
]
SPACED = {'_target_': 'Spacingd', 'keys': 'image', 'pixdim': [2.3, 1.9, 5.0], 'mode': 'bilinear'}
SCALED = {'_target_': 'NormalizeIntensityd', 'keys': 'image', 'nonzero': True}
CROPPED = {'_target_': 'CropForegroundd', 'keys': 'image', 'source_key': 'image', 'margin': 3}
RANGED = {
    '_target_': 'ScaleIntensityRanged',
    'keys': 'image',
    'a_min': 0,
    'a_max': 400,
    'b_min': 0.0,
    'b_max': 1.0,
    'clip': True,
}
INVERT = {
    '_target_': 'Invertd',
    'keys': 'pred',
    'transform': '@preprocessing',
    'orig_keys': 'image',
    'nearest_interp': False,
}
SOFTMAX = {'_target_': 'Activationsd', 'keys': 'pred', 'softmax': True}
ARGMAX = {'_target_': 'AsDiscreted', 'keys': 'pred', 'argmax': True}
SLIDING = {'_target_': 'SlidingWindowInferer', 'roi_size': [16, 20, 4], 'sw_batch_size': 2}


def as_monai(path: Path, image: Path) -> np.ndarray:
    """Run a bundle with MONAI alone."""
    parser = ConfigParser()
    parser.read_config(path / 'configs/inference.json')
    preprocessing = parser.get_parsed_content('preprocessing')
    inferer = parser.get_parsed_content('inferer')
    network = parser.get_parsed_content('network_def').eval()
    network.load_state_dict(torch.load(path / 'models/model.pt')['model'])
    data = preprocessing({'image': str(image)})
    with torch.no_grad():
        data['pred'] = inferer(data['image'][None], network)[0]
    done = parser.get_parsed_content('postprocessing')(data)
    return np.asarray(done['pred'][0])


@pytest.mark.parametrize(
    ('before', 'inferer', 'after', 'order'),
    [
        ([SPACED, SCALED], SLIDING, [INVERT, ARGMAX], 'RAS'),
        ([SPACED, SCALED], SLIDING | {'mode': 'gaussian'}, [SOFTMAX, INVERT, ARGMAX], 'LPS'),
        (
            # No voxel lies half-way between two pixels, where rounding decides.
            [RANGED, SPACED | {'pixdim': [2.3, 1.9, 4.7]}, CROPPED],
            SLIDING | {'overlap': 0.6},
            [SOFTMAX, ARGMAX, INVERT | {'nearest_interp': True}],
            'LAS',
        ),
        (
            [CROPPED, SCALED, SPACED],
            {'_target_': 'SliceInferer', 'roi_size': [24, 28], 'spatial_dim': 2, 'overlap': 0.5},
            [INVERT, ARGMAX],
            'LAS',
        ),
        (
            [SPACED, SCALED],
            {'_target_': 'SliceInferer', 'roi_size': [16, 4], 'spatial_dim': 0},
            [INVERT, ARGMAX],
            'RAS',
        ),
    ],
)
def test_a_bundle_gives_what_monai_gives(
    tmp_path: Path, before: list[Any], inferer: Any, after: list[Any], order: str
) -> None:
    two = inferer['_target_'] == 'SliceInferer'
    torch.manual_seed(5)
    path = monai_bundle(
        tmp_path / 'zoo',
        network_def=UNET | {'spatial_dims': 2 if two else 3},
        preprocessing={'_target_': 'Compose', 'transforms': [*BEFORE, *before]},
        inferer=inferer,
        postprocessing={'_target_': 'Compose', 'transforms': after},
    )
    arguments = UNET | {'spatial_dims': 2 if two else 3}
    del arguments['_target_']
    torch.save({'model': UNet(**arguments).state_dict()}, path / 'models/model.pt')
    rng = np.random.default_rng(0)
    # Blobs, so that most voxels are far from an outline, and air of exact zeros.
    values = zoom(rng.gamma(2, 100, (11, 9, 3)), (4, 4, 4), order=1).astype(np.float32)
    values[:5], values[:, :6] = 0, 0
    turn = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(values, turn @ np.diag([2.1, 2.0, 3.5, 1]))
    ornt = nib.orientations.axcodes2ornt(order)
    stored = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt)
    )
    nib.save(stored, tmp_path / 'scan.nii')
    theirs = as_monai(path, tmp_path / 'scan.nii').astype(int)
    assert len(np.unique(theirs)) == 3
    # MONAI's grid of an oblique scan hangs on how its affine is rounded in the file.
    image = nib.as_closest_canonical(nib.load(tmp_path / 'scan.nii'))
    found = Predictor(find_model(str(path), 'lumbar')).segment({'T2w': image}).labels
    back = nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt)
    ours = np.asarray(found.as_reoriented(back).dataobj)
    for number in (1, 2):
        both = ((ours == number) & (theirs == number)).sum()
        assert 2 * both / ((ours == number).sum() + (theirs == number).sum()) >= 0.999


def test_windows_of_a_bundle_are_those_of_its_inferer(tmp_path: Path) -> None:
    inferer = {'_target_': 'monai.inferers.SlidingWindowInferer', 'roi_size': [16, 16, 4]}
    given = bundle_with(tmp_path / 'default', inferer=inferer).procedure
    assert (given.overlap, float(given.weight((4, 4, 4)).min())) == (0.25, 1.0)  # as MONAI
    inferer |= {'overlap': 0.75, 'mode': 'gaussian'}
    given = bundle_with(tmp_path / 'given', inferer=inferer).procedure
    assert given.overlap == 0.75
    assert given.weight((4, 4, 4)).min() < 0.1


def test_strides_and_references_of_a_bundle(tmp_path: Path) -> None:
    uneven = UNET | {'channels': [4, 8, 8], 'strides': [[2, 2, 1], [2, 2, 2]]}
    path = monai_bundle(
        tmp_path / 'zoo',
        network_def=uneven | {'out_channels': '@sizes#classes#1', 'in_channels': '$@sizes::one'},
        sizes={'classes': [7, '@three'], 'one': 1},
        three=3,
    )
    network = UNet(**{k: value for k, value in uneven.items() if k != '_target_'})
    torch.save(network.state_dict(), path / 'models/model.pt')
    model = load_model(find_model(str(path), 'lumbar'))
    assert len(model.numbers) == 3


def test_classes_that_may_overlap_are_refused(tmp_path: Path) -> None:
    post = {'transforms': [{'_target_': 'Activationsd', 'keys': 'pred', 'sigmoid': True}]}
    with pytest.raises(ModelError, match=r'classes may overlap \(sigmoid\)'):
        bundle_with(tmp_path / 'sigmoid', postprocessing=post)
    with pytest.raises(ModelError, match=r'classes may overlap \(sigmoid\)'):
        bundle_with(
            tmp_path / 'named', postprocessing={'transforms': '@after'}, after=post['transforms']
        )
    post['transforms'][0] |= {'sigmoid': False, 'softmax': True}
    bundle_with(tmp_path / 'softmax', postprocessing=post)
    with pytest.raises(ModelError, match=r'the transform Lambda .* is not supported'):
        bundle_with(
            tmp_path / 'unknown',
            postprocessing={'transforms': [{'_target_': 'Lambdad', 'keys': 'pred'}]},
        )


def test_a_bundle_without_a_voxel_order_needs_one(tmp_path: Path) -> None:
    steps = {'transforms': [{'_target_': 'NormalizeIntensityd'}]}
    path = str(monai_bundle(tmp_path / 'zoo', preprocessing=steps))
    with pytest.raises(ModelError, match='--model-orientation'):
        find_model(path, 'lumbar')
    assert find_model(path, 'lumbar', 'LAS').card['orientation'] == 'LAS'


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'parameters': {'roi_size': [32, 32], 'pix_dim': [0, 2, -1]}}, 'pixel size of 0 mm'),
        ({'parameters': {'roi_size': [32], 'pix_dim': [2, 2, -1]}}, 'window of 32 pixels'),
        ({'model': None}, 'cannot be used'),
        ({'labels': [{'anatomy': 'psoas'}]}, "lacks 'value'"),
        (
            {'labels': [{'anatomy': 'a', 'value': n} for n in range(99)]},
            '9 classes, but 99 labels',
        ),
    ],
)
def test_a_musclemap_card_that_cannot_be_used_says_why(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = musclemap(tmp_path)
    card = json.loads(path.with_suffix('.json').read_text())
    path.with_suffix('.json').write_text(json.dumps(card | change))
    with pytest.raises(ModelError, match=reason):
        find_model(str(path), 'lumbar')


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = musclemap(tmp_path)
    state = torch.load(path)
    next(iter(state.values()))[0] = float('nan')
    torch.save(state, path)
    with pytest.raises(ModelError, match='not finite'):
        load_model(find_model(str(path), 'lumbar'))


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'channels': [16384, 16384]}, 'parameters'),
        ({'channels': [4]}, 'cannot be used'),
        ({'strides': [0]}, 'strides 0'),
        ({'act': 'os.system'}, 'cannot be used'),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = musclemap(tmp_path)
    card = json.loads(path.with_suffix('.json').read_text())
    card['model'] |= change
    path.with_suffix('.json').write_text(json.dumps(card))
    with pytest.raises(ModelError, match=reason):
        load_model(find_model(str(path), 'lumbar'))
