// The 3D view of the page: createView(canvas, topology, blendshapes) -> {show, express, look}, or null without WebGL.
const VERTEX = `
  attribute vec3 position, normal, color; attribute vec2 uv;
  uniform mat3 turn; uniform vec3 center; uniform vec2 lens; uniform float distance, size;
  varying vec3 vNormal, vView, vColor; varying vec2 vUv;
  void main() {
    vec3 p = turn * (position - center) - vec3(0.0, 0.0, distance);
    float near = max(distance - 2.0 * size, 0.01 * size), far = distance + 2.0 * size;
    gl_Position = vec4(lens * p.xy, (near + far) / (near - far) * p.z + 2.0 * near * far / (near - far), -p.z);
    vNormal = turn * normal; vView = -p; vColor = color; vUv = uv;
  }`;
const FRAGMENT = `
  precision mediump float;
  uniform sampler2D image; uniform int look;  // 0 texture, 1 clay, 2 parts, 3 lines
  varying vec3 vNormal, vView, vColor; varying vec2 vUv;
  void main() {
    if (look == 3) { gl_FragColor = vec4(0.08, 0.09, 0.11, 1.0); return; }
    float front = gl_FrontFacing ? 1.0 : -1.0;
    vec3 n = normalize(vNormal) * front, v = normalize(vView);
    vec3 albedo = look == 0 ? texture2D(image, vUv).rgb : look == 1 ? vec3(0.80, 0.76, 0.72) : vColor;
    float key = max(dot(n, normalize(vec3(-0.5, 0.65, 0.75))), 0.0), fill = max(dot(n, normalize(vec3(0.8, 0.0, 0.5))), 0.0);
    float rim = pow(1.0 - max(dot(n, v), 0.0), 3.0);
    vec3 light = 0.22 + 0.70 * key * vec3(1.0, 0.97, 0.93) + 0.22 * fill * vec3(0.80, 0.88, 1.0);
    vec3 color = albedo * light + (look == 1 ? 0.10 : 0.05) * rim;
    // The photo's texture brings its own light: only a little form is added.
    if (look == 0) color = albedo * (0.86 + 0.14 * max(dot(n, v), 0.0));
    gl_FragColor = vec4(color * (front > 0.0 ? 1.0 : 0.45), 1.0);
  }`;

function createView(canvas, topology, blendshapes) {
  const gl = canvas.getContext("webgl", { antialias: true });
  const wide = gl && (topology.indexBytes === 2 || gl.getExtension("OES_element_index_uint"));
  if (!wide) {
    canvas.replaceWith(element("p", { textContent: "This browser has no WebGL, so the mesh cannot be shown here. The pictures and the mesh files are complete." }));
    return null;
  }
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const place = name => gl.getUniformLocation(program, name);
  const uniforms = Object.fromEntries(["turn", "center", "lens", "distance", "size", "look"].map(name => [name, place(name)]));

  const Index = topology.indexBytes === 2 ? Uint16Array : Uint32Array;
  const indexType = topology.indexBytes === 2 ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
  const triangles = decode(topology.triangles, Index);
  const lines = edges(triangles, Index);
  const upload = (target, buffer, values) => { gl.bindBuffer(target, buffer); gl.bufferData(target, values, gl.STATIC_DRAW); };
  const triangleBuffer = gl.createBuffer(), lineBuffer = gl.createBuffer();
  upload(gl.ELEMENT_ARRAY_BUFFER, triangleBuffer, triangles);
  upload(gl.ELEMENT_ARRAY_BUFFER, lineBuffer, lines);
  const buffers = {};
  const attribute = (name, values, width, type = gl.FLOAT, normalized = false) => {
    buffers[name] ??= gl.createBuffer();
    upload(gl.ARRAY_BUFFER, buffers[name], values);
    const at = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, type, normalized, 0, 0);
  };
  attribute("uv", decode(topology.uv, Float32Array), 2);
  attribute("color", decode(topology.colors, Uint8Array), 3, gl.UNSIGNED_BYTE, true);
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.POLYGON_OFFSET_FILL);
  gl.polygonOffset(1, 1);  // keeps the lines of the wireframe in front
  gl.clearColor(0, 0, 0, 0);

  const start = { yaw: 0, pitch: 0.06, zoom: 1 };
  const state = { ...start, look: "Texture", center: [0, 0, 0], size: 1, touched: still, clock: 0, ready: false };
  let asked = false;
  const draw = () => { if (!asked) { asked = true; requestAnimationFrame(frame); } };

  function frame(time) {
    asked = false;
    const pixels = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map(side => Math.max(1, Math.round(side * pixels)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    if (!state.touched) {
      state.clock += Math.min(time - (state.last ?? time), 100) / 1000;
      state.yaw = 0.65 * Math.sin(state.clock * 0.7);
    }
    state.last = time;
    const [sy, cy, sp, cp] = [Math.sin(state.yaw), Math.cos(state.yaw), Math.sin(state.pitch), Math.cos(state.pitch)];
    const focal = 3.0, distance = 1.12 * focal * state.size / state.zoom;
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(uniforms.turn, false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]);
    gl.uniform3fv(uniforms.center, state.center);
    gl.uniform2f(uniforms.lens, focal * Math.min(1, height / width), focal * Math.min(1, width / height));
    gl.uniform1f(uniforms.distance, distance);
    gl.uniform1f(uniforms.size, state.size);
    const paint = (look, kind, buffer, count) => {
      gl.uniform1i(uniforms.look, look);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
      gl.drawElements(kind, count, indexType, 0);
    };
    const look = { Texture: 0, Clay: 1, Parts: 2, Mesh: 1 }[state.look];
    paint(look, gl.TRIANGLES, triangleBuffer, triangles.length);
    if (state.look === "Mesh") paint(3, gl.LINES, lineBuffer, lines.length);
    if (state.ready) document.documentElement.dataset.drawn = "yes";
    if (!state.touched) draw();
  }

  // Mouse, pen and touch alike: one pointer turns, two pinch.
  const pointers = new Map();
  const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  const zoomBy = factor => { state.zoom = Math.min(8, Math.max(0.4, state.zoom * factor)); };
  canvas.onpointerdown = event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    state.touched = true;
  };
  canvas.onpointermove = event => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = pointers.size === 2 ? spread() : 0;
    if (pointers.size === 1) {
      state.yaw += (event.clientX - last.x) * 0.008;
      state.pitch = Math.min(1.5, Math.max(-1.5, state.pitch + (event.clientY - last.y) * 0.008));
    }
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before > 0) zoomBy(spread() / before);
    draw();
  };
  canvas.onpointerup = canvas.onpointercancel = event => pointers.delete(event.pointerId);
  canvas.onwheel = event => { event.preventDefault(); state.touched = true; zoomBy(Math.exp(-event.deltaY * 0.0015)); draw(); };
  canvas.ondblclick = () => { Object.assign(state, start, { touched: still, clock: 0 }); draw(); };
  new ResizeObserver(draw).observe(canvas);

  // The face that is shown: its vertices as fitted, and with the expression of the sliders.
  let fitted = null, positions = null, fittedWeights = [], moves = null;
  const showPositions = () => { attribute("position", positions, 3); attribute("normal", normals(positions, triangles), 3); };

  return {
    express(weights) {
      moves ??= decodeBlendshapes(blendshapes, fitted.length / 3);
      positions.set(fitted);
      moves.forEach(({ corners, counts, step }, e) => {
        const amount = step * (weights[e] - fittedWeights[e]);
        if (amount === 0) return;
        for (let i = 0, c = 0; i < corners.length; i++) {
          const at = corners[i];
          positions[at] += amount * counts[c++];
          positions[at + 1] += amount * counts[c++];
          positions[at + 2] += amount * counts[c++];
        }
      });
      showPositions();
      draw();
    },
    show(face) {
      fitted = decode(face.positions, Float32Array);
      positions = fitted.slice();
      fittedWeights = face.weights;
      showPositions();
      const low = [0, 1, 2].map(axis => extreme(positions, axis, Math.min)), high = [0, 1, 2].map(axis => extreme(positions, axis, Math.max));
      state.center = low.map((value, axis) => (value + high[axis]) / 2);
      state.size = Math.max(...low.map((value, axis) => high[axis] - value)) / 2;
      state.ready = false;
      const image = new Image();
      image.onload = () => {
        gl.bindTexture(gl.TEXTURE_2D, face.uploaded ??= gl.createTexture());
        gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);  // v points up
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
        const power = side => (side & (side - 1)) === 0;
        const mips = power(image.width) && power(image.height);
        if (mips) gl.generateMipmap(gl.TEXTURE_2D);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, mips ? gl.LINEAR_MIPMAP_LINEAR : gl.LINEAR);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
        state.ready = true;
        draw();
      };
      image.src = face.texture;
    },
    look(name) { state.look = name; draw(); },
  };
}

function extreme(positions, axis, pick) {
  let value = positions[axis];
  for (let i = axis; i < positions.length; i += 3) value = pick(value, positions[i]);
  return value;
}
function normals(positions, triangles) {
  const total = new Float32Array(positions.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
    const ux = positions[b] - positions[a], uy = positions[b + 1] - positions[a + 1], uz = positions[b + 2] - positions[a + 2];
    const vx = positions[c] - positions[a], vy = positions[c + 1] - positions[a + 1], vz = positions[c + 2] - positions[a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    total[a] += x; total[a + 1] += y; total[a + 2] += z;
    total[b] += x; total[b + 1] += y; total[b + 2] += z;
    total[c] += x; total[c + 1] += y; total[c + 2] += z;
  }
  return total;  // the shader normalises
}
function decodeBlendshapes(data, vertexCount) {
  const moved = decode(data.moved, Uint8Array), counts = decode(data.counts, Int16Array), row = Math.ceil(vertexCount / 8);
  let start = 0;
  return data.steps.map((step, e) => {
    const corners = [];
    for (let v = 0; v < vertexCount; v++) if (moved[e * row + (v >> 3)] & (1 << (v & 7))) corners.push(3 * v);
    const own = counts.subarray(start, start + 3 * corners.length);
    start += own.length;
    return { corners: Uint32Array.from(corners), counts: own, step };
  });
}
function edges(triangles, Index) {
  const seen = new Set(), result = [], count = 1 << 22;
  for (let t = 0; t < triangles.length; t += 3) for (let k = 0; k < 3; k++) {
    const a = triangles[t + k], b = triangles[t + (k + 1) % 3], key = Math.min(a, b) * count + Math.max(a, b);
    if (!seen.has(key)) { seen.add(key); result.push(a, b); }
  }
  return new Index(result);
}
