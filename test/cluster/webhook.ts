import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { createAuthority } from '../../tools/cluster/certificates.ts'
import type { Kube } from '../../tools/cluster/kube.ts'

/** What a cluster does to new pods of a namespace: another container beside theirs, no, or no answer. */
export type Admission = { is: 'sidecar'; container: object } | { is: 'refusal'; message: string } | { is: 'down' }

type Review = { request: { uid: string } }

const REGISTRATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

const responseTo = ({ request }: Review, admission: Exclude<Admission, { is: 'down' }>): object => {
  if (admission.is === 'refusal')
    return { uid: request.uid, allowed: false, status: { code: 403, message: admission.message } }
  const patch = [{ op: 'add', path: '/spec/containers/-', value: admission.container }]
  return {
    uid: request.uid,
    allowed: true,
    patchType: 'JSONPatch',
    patch: Buffer.from(JSON.stringify(patch)).toString('base64'),
  }
}

/** An admission webhook, as service meshes and policy engines have one. */
export const startWebhook = async (kube: Kube, namespace: string, admission: Admission): Promise<AsyncDisposable> => {
  const authority = createAuthority('lap-webhook')
  const { certificate, key } = authority.issue({ commonName: 'webhook' }, ['127.0.0.1', 'localhost'])
  const server = https.createServer({ cert: certificate, key }, (request, response) => {
    if (admission.is === 'down') {
      request.socket.destroy()
      return
    }
    void json(request).then((review) => {
      const body = {
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: responseTo(review as Review, admission),
      }
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  await kube.create(REGISTRATIONS, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: namespace },
    webhooks: [
      {
        name: 'pods.lap.invalid',
        admissionReviewVersions: ['v1'],
        sideEffects: 'None',
        clientConfig: {
          url: `https://127.0.0.1:${(server.address() as AddressInfo).port}/`,
          caBundle: Buffer.from(authority.certificate).toString('base64'),
        },
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
        rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
      },
    ],
  })
  return {
    [Symbol.asyncDispose]: async () => {
      await kube.remove(`${REGISTRATIONS}/${namespace}`)
      server.close()
      server.closeAllConnections()
    },
  }
}
