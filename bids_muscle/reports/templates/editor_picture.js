// The picture: NiiVue with the images of the scan. All come in one voxel order (see
// review/voxels.py), so that the bytes of the drawing are those of the label map, x fastest.
import { $, ask, base, facts, sagittal } from './editor_page.js';

const [nx, ny, nz] = facts.shape;
const UNDO_STEPS = 32;

export const nv = new niivue.Niivue({
  backColor: [0, 0, 0, 1],
  clipPlaneHotKey: 'None',
  crosshairColor: [0.47, 0.8, 1, 0.6],
  crosshairWidth: 0.3,
  cycleClipPlaneHotKey: 'None',
  dragAndDropEnabled: false,
  dragMode: niivue.DRAG_MODE.windowing,
  isNearestInterpolation: false,
  isRadiologicalConvention: true,
  logLevel: 'error',
  maxDrawUndoBitmaps: UNDO_STEPS,
  // Without a GPU the rendering takes most of the time of each stroke; it has a view of its own.
  multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
  sagittalNoseLeft: true, // as in the other pictures of the pages
  show3Dcrosshair: true,
  viewModeHotKey: 'None',
});

export async function attach() {
  await nv.attachToCanvas($('canvas'));
  // For each image and window, NiiVue computes gradients that only a lit rendering needs, which
  // takes most of the time without a GPU; a shader that copies takes the place of those.
  nv.blurShader = nv.passThroughShader;
  nv.sobelFirstOrderShader = nv.passThroughShader;
  // It waits for the GPU at each slice.
  nv.gl.checkFramebufferStatus = () => nv.gl.FRAMEBUFFER_COMPLETE;
}

async function add(key, options) {
  const content = await (await ask(`${base}/image/${key}.nii`)).arrayBuffer();
  await nv.addVolumeFromUrl({ url: `${key}.nii`, name: `${key}.nii`, buffer: content, ...options });
}

export async function show(key) {
  const drawing = nv.drawBitmap && nv.drawBitmap.slice();
  // Each update computes all textures anew, which takes most of the time without a GPU.
  nv.updateGLVolume = () => {};
  try {
    while (nv.volumes.length) nv.removeVolumeByIndex(0);
    await add(key, { colormap: 'gray' });
    const volume = nv.volumes[0];
    if (volume.permRAS.join() !== '1,2,3' || volume.dimsRAS.slice(1, 4).join() !== facts.shape.join()) {
      throw new Error('The image has another voxel order than the label map.');
    }
    setWindow();
    if ($('map').value) await addMap();
  } finally {
    delete nv.updateGLVolume; // that of its class is there again
  }
  nv.updateGLVolume();
  blend();
  if (drawing) {
    nv.drawBitmap = drawing;
    nv.refreshDrawing(true);
  }
}

async function addMap() {
  const fat = $('map').value === 'fat_fraction';
  await add($('map').value, { colormap: fat ? 'hot' : 'viridis', cal_min: 0, cal_max: fat ? 1 : 100, opacity: 0 });
}

export async function overlay() {
  while (nv.volumes.length > 1) nv.removeVolumeByIndex(1);
  if ($('map').value) await addMap();
  blend();
  nv.createOnLocationChange();
}

// A map would hide the structures in three dimensions.
export function blend() {
  const solid = nv.opts.sliceType === nv.sliceTypeRender;
  if (nv.volumes[1]) nv.setOpacity(1, solid ? 0 : Number($('map-opacity').value) / 100);
  nv.setDrawOpacity(solid ? 1 : Number($('opacity').value) / 100);
}

function setWindow() {
  const { global_min: low, global_max: high } = nv.volumes[0];
  const middle = low + (high - low) * Number($('level').value) / 100;
  const half = (high - low) * Number($('window').value) / 200;
  nv.volumes[0].cal_min = middle - half;
  nv.volumes[0].cal_max = middle + half;
}

let waiting = 0;
export function windowing() {
  if (waiting) return;
  waiting = requestAnimationFrame(() => {
    waiting = 0;
    setWindow();
    nv.updateGLVolume();
  });
}

export function colours() {
  const shown = new Set([...$('labels').querySelectorAll('[type=checkbox]')]
    .filter((box) => box.checked).map((box) => Number(box.value)));
  const channel = (place) => [0, ...facts.labels.map((label) => label.rgb[place])];
  nv.setDrawColormap({
    R: channel(0), G: channel(1), B: channel(2),
    A: [0, ...facts.labels.map((_, k) => (shown.has(k + 1) ? 255 : 0))],
    labels: ['', ...facts.labels.map((label) => label.name)],
  });
}

// Slices are counted along the axis on which the scan was cut.
export const slices = sagittal ? nx : nz;
export const sliceOf = (voxel) => (sagittal ? voxel % nx : Math.floor(voxel / (nx * ny)));

export function scroll(by) {
  nv.moveCrosshairInVox(sagittal ? by : 0, 0, sagittal ? 0 : by);
}

export function goTo(slice) {
  const here = nv.frac2vox(nv.scene.crosshairPos)[sagittal ? 0 : 2];
  scroll(slice - here);
}

nv.onLocationChange = (location) => {
  const [x, y, z] = location.vox.map((value) => Math.round(value));
  const label = nv.drawBitmap ? nv.drawBitmap[x + nx * (y + ny * z)] : 0;
  const mm = facts.affine.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
  $('slice').textContent = (sagittal
    ? `Sagittal slice ${x} (0 to ${nx - 1}), `
    : `Axial slice ${z} (0 to ${nz - 1}), level ${facts.levels[z] || 'unknown'}, `)
    + `x ${mm[0].toFixed(0)}, y ${mm[1].toFixed(0)}, z ${mm[2].toFixed(0)} mm`;
  $('under').textContent = label ? facts.labels[label - 1].name : `no ${sagittal ? 'vertebra or disc' : 'muscle'}`;
  $('under').dataset.label = label;
  $('values').textContent = location.values
    .map(({ name, value }) => `${name.replace('.nii', '')} ${Number.isFinite(value) ? Number(value.toPrecision(3)) : 'n/a'}`).join(', ');
};
