/** Powers of ten and of two that may follow a number. */
const FACTORS: Record<string, number> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
}

/**
 * An amount as Kubernetes writes it (`250m`, `2`, `1.5Gi`, `1e3`, `12E`), as a number of cores or bytes. An `e` or `E` with digits after it is an exponent, a
 * final `E` is exa.
 * @returns null for what is no quantity
 */
export const parseQuantity = (text: string): number | null => {
  const found = /^([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$/.exec(text.trim())
  if (found === null) return null
  const [, number = '', exponent, suffix = ''] = found
  const factor = exponent === undefined ? FACTORS[suffix] : 10 ** Number(exponent)
  return factor === undefined ? null : Number(number) * factor
}

/** The quantities that people write in settings and agents: never negative, and no more exotic than needed. */
export const QUANTITY = /^\d+(\.\d+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e\d+)?$/

/** Amounts as texts. */
export type Amounts = { cpu?: string | undefined; memory?: string | undefined }

/** What a sandbox is promised of its node, and what it may use; what is left out is as the platform's settings say. */
export type ResourceRequirements = { requests?: Amounts | undefined; limits?: Amounts | undefined }

const said = (amounts: Amounts): Record<string, string> =>
  Object.fromEntries(Object.entries(amounts).filter((entry): entry is [string, string] => entry[1] !== undefined))

/** @returns `own` where it says something, `base` elsewhere */
export const withResources = (
  base: ResourceRequirements,
  own: ResourceRequirements | null,
): Record<'requests' | 'limits', Record<string, string>> => ({
  requests: { ...said(base.requests ?? {}), ...said(own?.requests ?? {}) },
  limits: { ...said(base.limits ?? {}), ...said(own?.limits ?? {}) },
})
