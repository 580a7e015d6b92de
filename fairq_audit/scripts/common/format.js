// How numbers and names are written: with a true minus, and alike where they stand together.

// With a minus as wide as a plus, not a hyphen.
export function withMinus(text) {
  return text.replaceAll("-", "−");
}

export function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

export function plain(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  let text = value.toLocaleString("en-US", { maximumSignificantDigits: digits });
  if (size >= 100) text = Math.round(value).toLocaleString("en-US");
  if (size && (size < 1e-4 || size >= 1e7)) text = value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return withMinus(text);
}

const MOST_DECIMALS = 4;

// With so many decimals; as a power of ten where that would be endless, or leave nothing.
export function fixed(value, decimals) {
  if (value === null || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  if (size >= 1e7 || (size && size < 1e-4 && decimals === MOST_DECIMALS)) return plain(value, 2);
  const places = { minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "negative" };
  return withMinus(value.toLocaleString("en-US", places));
}

// So many that the largest has three digits; of what spans powers of ten, the smallest two.
export function decimalsFor(values, log = false) {
  const known = values.filter(Boolean);
  if (known.every(Number.isInteger)) return 0;
  const sizes = known.map(Math.abs);
  const needed = log ? 1 - Math.floor(Math.log10(Math.min(...sizes))) : 2 - Math.floor(Math.log10(Math.max(...sizes)));
  return Math.min(Math.max(needed, 0), MOST_DECIMALS);
}

// Numbers that stand one below the other, or beside each other, with as many decimals each.
export function alike(values, log = false) {
  const decimals = decimalsFor(values, log);
  return values.map((value) => fixed(value, decimals));
}

export function asPercent(share) {
  return `${fixed(100 * share, 1)} %`;
}

export function signed(value, decimals) {
  const text = fixed(Math.abs(value), decimals);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

// A value as it is said; what is not known stays so.
export function times(factor, value) {
  return value === null ? null : factor * value;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
