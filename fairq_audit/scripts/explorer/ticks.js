// Round numbers along an axis.

export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place <= high / step + 1e-9; place++) {
    found.push(place * step || 0); // and not -0
  }
  return found;
}

// Of an axis in powers of ten, in the exponents; what lies between them where there are few powers.
export function logTicks(low, high, count) {
  const whole = [];
  const every = Math.max(1, Math.ceil((high - low) / count));
  for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power++) {
    if (power % every === 0) whole.push(power);
  }
  if (whole.length > 2) return whole;
  const between = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const one of [1, 2, 5]) between.push(power + Math.log10(one));
  }
  const inside = between.filter((place) => place >= low && place <= high);
  return inside.length > 1 ? inside : [low, high];
}
