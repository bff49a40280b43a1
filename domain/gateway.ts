/** The base URL of a gateway without the `/v1` that its clients add, whether it was given with it or without. */
export const gatewayRoot = (base: string): string => base.replace(/\/+$/, '').replace(/\/v1$/, '')
