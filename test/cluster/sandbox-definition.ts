/**
 * `sandboxes.agents.x-k8s.io` as far as the platform and the stand-in for its controller know it, for clusters that have no better definition. Pod templates are
 * taken as they are: the API server checks them when the pod is made.
 */
const strings = { type: 'object', additionalProperties: { type: 'string' } }
const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }

const condition = {
  type: 'object',
  required: ['lastTransitionTime', 'message', 'reason', 'status', 'type'],
  properties: {
    type: { type: 'string', maxLength: 316 },
    status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
    reason: { type: 'string', minLength: 1, maxLength: 1_024 },
    message: { type: 'string', maxLength: 32_768 },
    lastTransitionTime: { type: 'string', format: 'date-time' },
    observedGeneration: { type: 'integer', format: 'int64', minimum: 0 },
  },
}

const spec = {
  type: 'object',
  required: ['podTemplate'],
  properties: {
    operatingMode: { type: 'string', enum: ['Running', 'Suspended'], default: 'Running' },
    podTemplate: {
      type: 'object',
      required: ['spec'],
      properties: {
        metadata: { type: 'object', properties: { labels: strings, annotations: strings } },
        spec: open,
      },
    },
    service: { type: 'boolean' },
    shutdownPolicy: { type: 'string', enum: ['Delete', 'Retain'], default: 'Retain' },
    shutdownTime: { type: 'string', format: 'date-time' },
    volumeClaimTemplates: { type: 'array', items: open },
  },
}

const status = {
  type: 'object',
  properties: {
    conditions: { type: 'array', items: condition },
    nodeName: { type: 'string' },
    podIPs: { type: 'array', items: { type: 'string' } },
    selector: { type: 'string' },
    service: { type: 'string' },
    serviceFQDN: { type: 'string' },
  },
}

export const SANDBOX_DEFINITION = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'sandboxes.agents.x-k8s.io' },
  spec: {
    group: 'agents.x-k8s.io',
    names: { kind: 'Sandbox', listKind: 'SandboxList', plural: 'sandboxes', singular: 'sandbox' },
    scope: 'Namespaced',
    versions: [
      {
        name: 'v1beta1',
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: 'object', required: ['spec'], properties: { spec, status } } },
      },
    ],
  },
}
