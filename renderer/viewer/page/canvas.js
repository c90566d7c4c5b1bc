// Pictures with deep zoom. A picture that is drawn meanwhile is loaded anew on top of itself, so that
// nothing flickers, and what lay beneath goes once that is there.
"use strict";

// OpenSeadragon writes a style into a page that has none of this kind yet; page.css has it, and the
// policy lets none be written. An element of no namespace that a browser knows is no style to it.
const mark = document.createElementNS("frieze", "style");
mark.setAttribute("data-openseadragon-mobile-css", "true");
document.head.append(mark);

const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Where a tile lies. Tiles that will never change have an address of their own picture only. */
function tileAddress(about, frame, level, column, row) {
  return `stores/${about.key}/${frame}_files/${level}/${column}_${row}${about.suffix}?of=${about.edition}`;
}

function tileSource(about, frame) {
  return {
    width: about.width,
    height: about.height,
    tileSize: about.tile,
    tileOverlap: 0,
    minLevel: Math.min(about.top, 8),
    maxLevel: about.top,
    getTileUrl: (level, x, y) => tileAddress(about, frame, level, x, y),
    hasTransparency: () => about.state !== "done",
    getTileHashKey: (level, x, y) =>
      `${about.key} ${about.edition} ${about.revision} ${frame} ${level} ${x} ${y}`,
  };
}

/** One picture of the canvas: its latents beneath, its tiles above, and those that are on their way. */
class Layer {
  constructor(canvas, options) {
    this.canvas = canvas;
    this.options = options;
    this.shown = [];
    this.beneath = [];
    this.wanted = null;
    this.isLoading = false;
  }

  /** Shows a store's frame as it is by now. */
  show(about, frame) {
    const label = `${about.key} ${about.edition} ${about.revision} ${frame}`;
    if (this.label === label) return;
    this.label = label;
    this.wanted = { about, frame };
    if (!this.isLoading) this.load();
  }

  load() {
    const { about, frame } = this.wanted;
    this.wanted = null;
    this.isLoading = true;
    if (about.is_saved && about.state !== "done" && !this.options.compositeOperation) {
      this.loadPreview(about, frame);
    }
    const old = this.shown;
    const finish = () => {
      for (const item of old) this.canvas.world.removeItem(item);
      if (about.state === "done") this.clearPreview();
      this.isLoading = false;
      this.canvas.raiseEvent("layer-loaded", { layer: this });
      if (this.wanted) this.load();
    };
    this.canvas.addTiledImage({
      tileSource: tileSource(about, frame),
      width: 1,
      opacity: this.opacity ?? 1,
      compositeOperation: this.options.compositeOperation,
      success: ({ item }) => {
        this.shown = [item];
        if (!this.canvas.isPlaced) {
          this.canvas.isPlaced = true;
          if (this.canvas.firstBounds) this.canvas.viewport.fitBounds(this.canvas.firstBounds, true);
          else this.canvas.viewport.goHome(true);
        }
        if (item.getFullyLoaded()) finish();
        else item.addOnceHandler("fully-loaded-change", finish);
      },
      error: () => { this.isLoading = false; },
    });
  }

  loadPreview(about, frame) {
    const old = this.beneath;
    this.canvas.addTiledImage({
      tileSource: { type: "image", url: `stores/${about.key}/${frame}.preview.png?v=${about.revision}`, buildPyramid: false },
      width: 1,
      index: old.length ? 1 : 0,
      success: ({ item }) => {
        this.beneath = [item];
        const clear = () => { for (const each of old) this.canvas.world.removeItem(each); };
        if (item.getFullyLoaded()) clear();
        else item.addOnceHandler("fully-loaded-change", clear);
      },
    });
  }

  clearPreview() {
    for (const item of this.beneath) this.canvas.world.removeItem(item);
    this.beneath = [];
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    for (const item of this.shown) item.setOpacity(opacity);
  }
}

/** A canvas in an element, and what the tools and keys do to it. */
function makeCanvas(element) {
  const viewer = OpenSeadragon({
    element,
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: true,
    navigatorPosition: "BOTTOM_RIGHT",
    navigatorSizeRatio: 0.16,
    navigatorAutoFade: true,
    // A page that was opened as a file may show pictures that lie beside it, and ask for none.
    loadTilesWithAjax: location.protocol !== "file:",
    animationTime: calm ? 0 : 0.5,
    blendTime: 0,
    maxZoomPixelRatio: 16,
    minZoomImageRatio: 0.5,
    visibilityRatio: 0.3,
    maxImageCacheCount: 400,
    smoothTileEdgesMinZoom: Infinity,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  viewer.addHandler("tile-drawing", ({ context, tile }) => onWholePixels(context, tile));
  viewer.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
  viewer.addHandler("animation", () => {
    const item = viewer.world.getItemAt(viewer.world.getItemCount() - 1);
    // Above full size a pixel is a square, as those who look that closely want to see.
    if (item) viewer.drawer.setImageSmoothingEnabled(pixelRatio(viewer, item) <= 1.01);
  });
  return viewer;
}

/** Tiles begin and end where pixels of the screen do: none is blurred, and no seam is seen. */
function onWholePixels(context, tile) {
  const density = OpenSeadragon.pixelDensityRatio;
  const map = (position, size) => {
    // OpenSeadragon draws tiles a pixel larger than they are, against seams.
    const from = Math.round(position * density);
    const scale = Math.max(1, Math.round((position + size - 1) * density) - from) / (size * density);
    return [scale, from - position * density * scale];
  };
  const [across, left] = map(tile.position.x, tile.size.x);
  const [down, top] = map(tile.position.y, tile.size.y);
  context.transform(across, 0, 0, down, left, top);
}

/** Pixels of the screen to one of the picture. */
function pixelRatio(viewer, item) {
  return item.viewportToImageZoom(viewer.viewport.getZoom(true)) * (window.devicePixelRatio || 1);
}

function topItem(viewer) {
  return viewer.world.getItemAt(viewer.world.getItemCount() - 1);
}

const moves = {
  in: (viewer) => viewer.viewport.zoomBy(1.5).applyConstraints(),
  out: (viewer) => viewer.viewport.zoomBy(1 / 1.5).applyConstraints(),
  all: (viewer) => viewer.viewport.goHome(),
  full: (viewer) => {
    const item = topItem(viewer);
    if (item) viewer.viewport.zoomTo(item.imageToViewportZoom(1 / (window.devicePixelRatio || 1)));
  },
  by: (viewer, x, y) => {
    const part = viewer.viewport.getBounds();
    viewer.viewport.panBy(new OpenSeadragon.Point((x * part.width) / 8, (y * part.width) / 8)).applyConstraints();
  },
};

/** Two canvases that show the same place at the same zoom. */
function tie(one, other) {
  let isFollowing = false;
  const follow = (from, to) => () => {
    if (isFollowing || !from.world.getItemCount() || !to.world.getItemCount()) return;
    isFollowing = true;
    to.viewport.zoomTo(from.viewport.getZoom(true), null, true);
    to.viewport.panTo(from.viewport.getCenter(true), true);
    isFollowing = false;
  };
  let last = one;
  for (const [from, to] of [[one, other], [other, one]]) {
    for (const event of ["canvas-enter", "canvas-press", "canvas-scroll"]) from.addHandler(event, () => { last = from; });
    from.addHandler("viewport-change", () => { if (last === from) follow(from, to)(); });
    from.addHandler("animation-finish", () => { if (last === from) follow(from, to)(); });
  }
  return { lead: () => last, setLead: (viewer) => { last = viewer; } };
}
