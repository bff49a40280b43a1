import { z } from 'zod'
import { parseRange } from '../domain/cidr.ts'
import { QUANTITY } from '../domain/quantity.ts'

/** Rules of the settings that describe pods. The API server checks them too, but only when the first sandbox is made. */

const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/
const LABEL_KEY = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/
const LABEL_VALUE = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/

/** An amount as Kubernetes writes it: `250m`, `2`, `512Mi`, `1.5G`. */
export const quantity = z.string().regex(QUANTITY, {
  error: 'must be a Kubernetes quantity, for instance 500m, 2 or 512Mi',
})

export const objectName = z.string().regex(NAME, { error: 'must be the name of a Kubernetes object' })

const listOf = (value: string): string[] =>
  value
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== '')

export const objectNames = z
  .string()
  .refine((value) => listOf(value).every((name) => NAME.test(name)), {
    error: 'must be names of Kubernetes objects, separated by commas',
  })
  .transform(listOf)

const pairOf = (pair: string): [string, string] => {
  const [key = '', ...rest] = pair.split('=')
  return [key, rest.join('=')]
}

/** `disk=ssd,pool=agents` */
export const labels = z
  .string()
  .refine(
    (value) =>
      listOf(value).every((pair) => {
        const [key, label] = pairOf(pair)
        return pair.includes('=') && LABEL_KEY.test(key) && LABEL_VALUE.test(label)
      }),
    { error: 'must be labels as name=value, separated by commas' },
  )
  .transform((value) => Object.fromEntries(listOf(value).map(pairOf)))

const rangesOf = (value: string): string[] => (value === 'none' ? [] : listOf(value))

const areRanges = (value: string): boolean =>
  (value === 'none' || rangesOf(value).length > 0) &&
  rangesOf(value).every((one) => one.includes('/') && parseRange(one) !== null)

/** `10.0.0.0/8,fc00::/7`, or `none`: an empty text would count as unset. */
export const ranges = z
  .string()
  .refine(areRanges, {
    error:
      'must be ranges in CIDR notation, separated by commas: 10.0.0.0/8 or fc00::/7, a single address as 10.1.2.3/32; none for no range',
  })
  .transform((value) => [...new Set(rangesOf(value).flatMap((one) => parseRange(one)?.text ?? []))])

const toleration = z.strictObject({
  key: z.string().optional(),
  operator: z.enum(['Exists', 'Equal']).optional(),
  value: z.string().optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
  tolerationSeconds: z.int().optional(),
})

const parsed = (value: string): unknown => {
  try {
    return JSON.parse(value)
  } catch {
    return undefined
  }
}

/** A JSON array, as `tolerations` of a pod. */
export const tolerations = z
  .string()
  .refine((value) => z.array(toleration).safeParse(parsed(value)).success, {
    error: 'must be a JSON array of tolerations with key, operator, value, effect and tolerationSeconds',
  })
  .transform((value) => z.array(toleration).parse(parsed(value)))
