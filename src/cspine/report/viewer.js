"use strict";
// Three linked planes on canvases and the levels as surfaces by WebGL. Voxel indices are [x, y, z], z runs down.
const element = (name) => document.getElementById(name);
const data = JSON.parse(element("data").textContent);
const [nx, ny, nz] = data.shape;
const VIEWS = { axial: [0, 1, 2], sagittal: [1, 2, 0], coronal: [0, 2, 1] }; // across, down, through
const WINDOWS = { bone: [-300, 1200], soft: [-160, 240], wide: [-600, 1400] };
const state = { at: data.start.slice(), window: "bone", levels: 0.25, heat: 0.6, lesions: true, chosen: null,
  yaw: data.yaw, pitch: 0.12, zoom: 1 };
let volume, labels, heat, space = null;

async function unpack(name) {
  const text = element(name).textContent, bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function unpackVoxels(name) {
  const values = new Uint8Array(await unpack(name));
  for (let i = 0; i < values.length; i++) if (i % nx) values[i] += values[i - 1];
  return values;
}

// ---- mm

const apply = (m, p) => [0, 1, 2].map((r) => m[r][0] * p[0] + m[r][1] * p[1] + m[r][2] * p[2] + m[r][3]);
const toMm = (at) => apply(data.affine, at);
const toVoxel = (mm) => apply(data.inverse, mm);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// The letter of the patient's side that a voxel axis points to: LPS has left, posterior and head positive.
function letter(axis, sign) {
  const steps = [0, 1, 2].map((r) => data.affine[r][axis] * sign);
  const most = steps.reduce((best, value, r) => (Math.abs(value) > Math.abs(steps[best]) ? r : best), 0);
  return ["LPS", "RAI"][steps[most] > 0 ? 0 : 1][most];
}

function go(at, chosen = null) {
  state.at = at.map((value, axis) => clamp(Math.round(value), 0, data.shape[axis] - 1));
  state.chosen = chosen;
  draw();
}

function goTo(key) {
  const [kind, number] = key.split("-");
  const found = (kind === "level" ? data.levels : data.lesions)[Number(number)];
  if (found.centre) go(toVoxel(found.centre), key);
}

// ---- planes

const greys = new Uint8Array(256), heatColours = new Uint8ClampedArray(256 * 3);
function setGreys() {
  const [low, high] = WINDOWS[state.window];
  for (let code = 0; code < 256; code++) greys[code] = clamp(((data.hu[code] - low) / (high - low)) * 255, 0, 255);
}
// Black, purple, orange, pale yellow.
const HOT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
for (let code = 0; code < 256; code++) {
  const place = (code / 255) * (HOT.length - 1), lower = Math.min(Math.floor(place), HOT.length - 2);
  for (let c = 0; c < 3; c++)
    heatColours[3 * code + c] = HOT[lower][c] + (place - lower) * (HOT[lower + 1][c] - HOT[lower][c]);
}

const steps = [1, nx, nx * ny];
const buffers = {};
for (const [name, [across, down]] of Object.entries(VIEWS)) {
  const canvas = document.createElement("canvas");
  canvas.width = data.shape[across];
  canvas.height = data.shape[down];
  buffers[name] = { canvas, context: canvas.getContext("2d"), image: new ImageData(canvas.width, canvas.height) };
}

function fill(name) {
  const [across, down, through] = VIEWS[name], { context, image } = buffers[name], pixels = image.data;
  const start = state.at[through] * steps[through];
  for (let row = 0, out = 0; row < image.height; row++) {
    for (let column = 0, i = start + row * steps[down]; column < image.width; column++, i += steps[across], out += 4) {
      const grey = greys[volume[i]];
      let red = grey, green = grey, blue = grey;
      if (labels[i] && state.levels) {
        const colour = data.colours[labels[i] - 1];
        red += (colour[0] - red) * state.levels;
        green += (colour[1] - green) * state.levels;
        blue += (colour[2] - blue) * state.levels;
      }
      if (heat && heat[i] && state.heat) {
        const share = state.heat * Math.min(1, heat[i] / 128), place = 3 * heat[i];
        red += (heatColours[place] - red) * share;
        green += (heatColours[place + 1] - green) * share;
        blue += (heatColours[place + 2] - blue) * share;
      }
      pixels[out] = red;
      pixels[out + 1] = green;
      pixels[out + 2] = blue;
      pixels[out + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

// Where the plane lies on the view, in its pixels: the whole of it, at the scale of the screen.
function fit(canvas, name) {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  if (!name) return { ratio };
  const { image } = buffers[name], scale = Math.min(width / image.width, height / image.height);
  return { ratio, scale, left: (width - image.width * scale) / 2, top: (height - image.height * scale) / 2 };
}

function drawPlane(name) {
  const canvas = element(name), context = canvas.getContext("2d"), [across, down, through] = VIEWS[name];
  const { ratio, scale, left, top } = fit(canvas, name), { image } = buffers[name];
  fill(name);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = true;
  context.drawImage(buffers[name].canvas, left, top, image.width * scale, image.height * scale);
  const x = left + (state.at[across] + 0.5) * scale, y = top + (state.at[down] + 0.5) * scale;
  context.strokeStyle = "rgba(37, 194, 255, 0.55)";
  context.lineWidth = ratio;
  context.beginPath();
  context.moveTo(x, top); context.lineTo(x, top + image.height * scale);
  context.moveTo(left, y); context.lineTo(left + image.width * scale, y);
  context.stroke();
  if (state.lesions) {
    for (const lesion of data.lesions) {
      const [low, high] = lesion.voxels;
      if (state.at[through] < low[through] || state.at[through] > high[through]) continue;
      context.strokeStyle = "#ff3bd4";
      context.lineWidth = 1.5 * ratio;
      context.strokeRect(left + (low[across] + 0.5) * scale, top + (low[down] + 0.5) * scale,
        (high[across] - low[across]) * scale, (high[down] - low[down]) * scale);
    }
  }
  const size = 13 * ratio;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.fillStyle = "#f2a900";
  context.textAlign = "center";
  context.textBaseline = "middle";
  const { width, height } = canvas;
  for (const [text, px, py] of [[letter(across, -1), size, height / 2], [letter(across, 1), width - size, height / 2],
    [letter(down, -1), width / 2, size], [letter(down, 1), width / 2, height - size]]) context.fillText(text, px, py);
}

function point(name, event) {
  const canvas = element(name), { ratio, scale, left, top } = fit(canvas, name), [across, down] = VIEWS[name];
  const box = canvas.getBoundingClientRect(), at = state.at.slice();
  at[across] = ((event.clientX - box.left) * ratio - left) / scale - 0.5;
  at[down] = ((event.clientY - box.top) * ratio - top) / scale - 0.5;
  go(at);
}

for (const name of Object.keys(VIEWS)) {
  const canvas = element(name), through = VIEWS[name][2];
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(name, event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) point(name, event); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = state.at.slice();
    at[through] += Math.sign(event.deltaY);
    go(at);
  }, { passive: false });
}

// ---- surfaces

const VERTEX = `attribute vec3 place, normal; uniform mat4 turn; varying vec3 facing;
void main() { gl_Position = turn * vec4(place, 1.0); facing = normal; }`;
const FRAGMENT = `precision mediump float; varying vec3 facing; uniform vec3 colour, light; uniform float flatness;
void main() { float share = abs(dot(normalize(facing), light));
gl_FragColor = vec4(colour * mix(0.25 + 0.75 * share, 1.0, flatness), 1.0); }`;

class Space {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { preserveDrawingBuffer: true, antialias: true });
    if (!this.gl) throw new Error("no WebGL");
    const { gl } = this, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    this.place = gl.getAttribLocation(program, "place");
    this.normal = gl.getAttribLocation(program, "normal");
    this.uniform = Object.fromEntries(["turn", "colour", "light", "flatness"].map((n) => [n, gl.getUniformLocation(program, n)]));
    this.things = [];
  }

  // Corners in mm about the middle of the levels; `mode` is gl.TRIANGLES or gl.LINES.
  add(key, corners, normals, indices, mode, colour) {
    const { gl } = this, made = { key, mode, colour, count: indices.length };
    for (const [name, target, values] of [["corners", gl.ARRAY_BUFFER, corners], ["normals", gl.ARRAY_BUFFER, normals],
      ["indices", gl.ELEMENT_ARRAY_BUFFER, indices]]) {
      made[name] = gl.createBuffer();
      gl.bindBuffer(target, made[name]);
      gl.bufferData(target, values, gl.STATIC_DRAW);
    }
    this.things.push(made);
  }

  addSurface(key, raw, colour) {
    const count = new DataView(raw).getUint32(0, true), packed = new Uint16Array(raw, 4, 3 * count);
    const faces = new Uint16Array(raw, 4 + 6 * count), corners = new Float32Array(3 * count);
    for (let i = 0; i < count; i++)
      corners.set(this.centred(toMm([0, 1, 2].map((c) => packed[3 * i + c] / data.vertexSteps - 4))), 3 * i);
    this.add(key, corners, normalsOf(corners, faces), faces, this.gl.TRIANGLES, colour);
  }

  addBox(key, [low, high], colour) {
    const corners = new Float32Array(24), ends = [low, high];
    for (let i = 0; i < 8; i++) corners.set(this.centred([ends[i & 1][0], ends[(i >> 1) & 1][1], ends[i >> 2][2]]), 3 * i);
    const edges = [0, 1, 1, 3, 3, 2, 2, 0, 4, 5, 5, 7, 7, 6, 6, 4, 0, 4, 1, 5, 2, 6, 3, 7];
    const faces = [0, 1, 3, 0, 3, 2, 4, 5, 7, 4, 7, 6, 0, 1, 5, 0, 5, 4, 2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 3, 7, 1, 7, 5];
    this.add(key, corners, corners, new Uint16Array(edges), this.gl.LINES, colour);
    this.add(key, corners, corners, new Uint16Array(faces), this.gl.TRIANGLES, null); // to be clicked, not seen
  }

  centred(mm) { return mm.map((value, axis) => value - data.middle[axis]); }

  // Unit vectors in LPS mm: to the right of the screen, up and toward the viewer.
  axes() {
    const cy = Math.cos(state.yaw), sy = Math.sin(state.yaw), cp = Math.cos(state.pitch), sp = Math.sin(state.pitch);
    return [[cy, sy, 0], [-sy * sp, cy * sp, cp], [sy * cp, -cy * cp, sp]];
  }

  // Column-major; from LPS mm about the middle to the screen: seen from the front at yaw 0, the head up.
  turn() {
    const scale = (1.75 * state.zoom) / data.extent, aspect = this.canvas.width / this.canvas.height;
    const [right, up, toward] = this.axes();
    const rows = [right.map((v) => (v * scale) / aspect), up.map((v) => v * scale), toward.map((v) => -v / 400)];
    return new Float32Array([0, 1, 2].flatMap((c) => [rows[0][c], rows[1][c], rows[2][c], 0]).concat([0, 0, 0, 1]));
  }

  paint(picking) {
    const { gl, uniform } = this;
    fit(this.canvas);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(uniform.turn, false, this.turn());
    const [right, up, toward] = this.axes(); // light from the upper left, behind the viewer
    gl.uniform3fv(uniform.light, toward.map((value, c) => 0.86 * value + 0.4 * up[c] - 0.32 * right[c]));
    this.things.forEach((thing, number) => {
      const lesion = thing.key.startsWith("lesion");
      if ((lesion && !state.lesions) || (!picking && !thing.colour)) return;
      let colour = picking ? [(number + 1) / 255, 0, 0] : thing.colour.map((value) => value / 255);
      if (!picking && thing.key === state.chosen && !lesion) colour = colour.map((v, c) => v + ([0.15, 0.76, 1][c] - v) * 0.45);
      gl.uniform3fv(uniform.colour, colour);
      gl.uniform1f(uniform.flatness, picking || thing.mode === gl.LINES ? 1 : 0);
      for (const [attribute, buffer] of [[this.place, thing.corners], [this.normal, thing.normals]]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.enableVertexAttribArray(attribute);
        gl.vertexAttribPointer(attribute, 3, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, thing.indices);
      // A lesion lies in the bone: it is drawn through it.
      if (lesion) gl.disable(gl.DEPTH_TEST); else gl.enable(gl.DEPTH_TEST);
      gl.drawElements(thing.mode, thing.count, gl.UNSIGNED_SHORT, 0);
    });
    gl.enable(gl.DEPTH_TEST);
  }

  draw() { this.paint(false); this.mark(); }

  // What lies under a place on the canvas, in its own pixels from the upper left; null for nothing.
  pick(x, y) {
    this.paint(true);
    const pixel = new Uint8Array(4);
    this.gl.readPixels(x, this.canvas.height - 1 - y, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, pixel);
    this.draw();
    return pixel[0] ? this.things[pixel[0] - 1].key : null;
  }

  mark() {
    const canvas = element("space-marks"), context = canvas.getContext("2d"), { ratio } = fit(canvas), m = this.turn();
    const onScreen = (p, fixed) => [0, 1].map((r) => {
      const value = m[r] * p[0] + m[4 + r] * p[1] + m[8 + r] * p[2];
      return fixed ? value : r ? ((1 - value) / 2) * canvas.height : ((1 + value) / 2) * canvas.width;
    });
    context.clearRect(0, 0, canvas.width, canvas.height);
    const [x, y] = onScreen(this.centred(toMm(state.at)));
    context.strokeStyle = "#25c2ff";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    context.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
    context.stroke();
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const arm = 26 * ratio, corner = [44 * ratio, canvas.height - 44 * ratio];
    const scale = (1.75 * state.zoom) / data.extent, aspect = canvas.width / canvas.height;
    for (const [text, axis] of [["L", [1, 0, 0]], ["P", [0, 1, 0]], ["S", [0, 0, 1]], ["R", [-1, 0, 0]], ["A", [0, -1, 0]], ["I", [0, 0, -1]]]) {
      const [dx, dy] = onScreen(axis, true), tip = [corner[0] + ((dx * aspect) / scale) * arm, corner[1] - (dy / scale) * arm];
      context.strokeStyle = "#616e7c";
      context.beginPath();
      context.moveTo(...corner);
      context.lineTo(...tip);
      context.stroke();
      context.fillStyle = "#f2a900";
      context.fillText(text, corner[0] + (tip[0] - corner[0]) * 1.35, corner[1] + (tip[1] - corner[1]) * 1.35);
    }
    context.fillStyle = "#e4e7eb";
    for (const level of data.levels) if (level.surface && level.centre) {
      const [, ly] = onScreen(this.centred(level.centre));
      context.fillText(level.name, canvas.width - 22 * ratio, ly);
    }
  }
}

function normalsOf(corners, faces) {
  const normals = new Float32Array(corners.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [0, 1, 2].map((k) => 3 * faces[f + k]);
    const u = [0, 1, 2].map((k) => corners[b + k] - corners[a + k]), v = [0, 1, 2].map((k) => corners[c + k] - corners[a + k]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const at of [a, b, c]) for (let k = 0; k < 3; k++) normals[at + k] += n[k];
  }
  return normals;
}

function watchSpace(canvas) {
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => { moved = 0; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    moved += Math.abs(event.movementX) + Math.abs(event.movementY);
    state.yaw -= event.movementX * 0.01;
    state.pitch = clamp(state.pitch + event.movementY * 0.01, -1.57, 1.57);
    space.draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (moved > 4) return;
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    const key = space.pick((event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
    if (key) goTo(key);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    state.zoom = clamp(state.zoom * Math.exp(-event.deltaY * 0.001), 0.5, 6);
    space.draw();
  }, { passive: false });
}

// ---- the page

function draw() {
  for (const name of Object.keys(VIEWS)) drawPlane(name);
  if (space) space.draw();
  const i = state.at[0] + state.at[1] * nx + state.at[2] * nx * ny, mm = toMm(state.at).map((v) => v.toFixed(1));
  const level = labels[i] ? `, ${data.levels[labels[i] - 1].name}` : "";
  element("place").textContent = `x ${mm[0]}, y ${mm[1]}, z ${mm[2]} mm (LPS): ${data.hu[volume[i]]} HU${level}`;
  for (const row of document.querySelectorAll("tr[data-go]")) row.classList.toggle("chosen", row.dataset.go === state.chosen);
  for (const button of document.querySelectorAll("button[data-window]"))
    button.setAttribute("aria-pressed", String(button.dataset.window === state.window));
}

function listen() {
  for (const button of document.querySelectorAll("button[data-window]"))
    button.addEventListener("click", () => { state.window = button.dataset.window; setGreys(); draw(); });
  for (const name of ["levels", "heat"])
    element(`${name}-opacity`)?.addEventListener("input", (event) => { state[name] = Number(event.target.value); draw(); });
  element("lesions-shown")?.addEventListener("change", (event) => { state.lesions = event.target.checked; draw(); });
  for (const row of document.querySelectorAll("tr[data-go]")) row.addEventListener("click", () => goTo(row.dataset.go));
  window.addEventListener("resize", draw);
}

async function begin() {
  [volume, labels, heat] = await Promise.all([unpackVoxels("volume"), unpackVoxels("labels"),
    element("heat") ? unpackVoxels("heat") : null]);
  setGreys();
  try {
    space = new Space(element("space"));
    for (const [number, level] of data.levels.entries())
      if (level.surface) space.addSurface(`level-${number}`, await unpack(`surface-${number}`), level.colour);
    for (const [number, lesion] of data.lesions.entries()) space.addBox(`lesion-${number}`, lesion.extent, [255, 59, 212]);
    watchSpace(element("space"));
  } catch (error) {
    space = null;
    element("no-space").textContent = `The 3-D view needs WebGL, which this browser does not give (${error.message}).`;
  }
  listen();
  draw();
  document.documentElement.dataset.ready = "true";
}

begin();
