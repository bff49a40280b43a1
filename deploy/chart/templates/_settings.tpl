{{/*
What the ConfigMap holds: every setting that is not secret and not left to its default. The values of `sandbox` and `temporal.tls` become settings here.
An empty text counts as unset, as it does to the platform.
*/}}
{{- define "lap.settings" -}}
{{- $gateway := required "settings.LITELLM_API_BASE is required: the base URL of the LiteLLM gateway, for instance https://litellm.example.com" .Values.settings.LITELLM_API_BASE -}}
{{- $all := dict -}}
{{- range $name, $value := .Values.settings -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $all $name (include "lap.text" $value) -}}{{- end -}}
{{- end -}}
{{- $_ := set $all "BASE_URL" (include "lap.baseUrl" .) -}}
{{- range $name, $value := .Values.containerEnv -}}
{{- $_ := set $all (printf "CONTAINER_ENV_%s" $name) $value -}}
{{- end -}}
{{- $_ := set $all "SANDBOX_DRIVER" "kubernetes" -}}
{{- $_ := set $all "NODE_ENV" "production" -}}
{{- $_ := set $all "HOST" "0.0.0.0" -}}
{{- $_ := set $all "PORT" "3000" -}}
{{- $_ := set $all "METRICS_PORT" "9090" -}}
{{- $_ := set $all "WORKER_METRICS_PORT" "9091" -}}
{{- $_ := set $all "LAP_DATA_DIR" "/var/lib/lap" -}}
{{- with .Values.temporal.tls -}}
{{- if .existingSecret -}}
{{- with .caKey -}}{{- $_ := set $all "TEMPORAL_TLS_SERVER_CA_CERT_PATH" (printf "/etc/lap/temporal/%s" .) -}}{{- end -}}
{{- with .certKey -}}{{- $_ := set $all "TEMPORAL_TLS_CLIENT_CERT_PATH" (printf "/etc/lap/temporal/%s" .) -}}{{- end -}}
{{- with .keyKey -}}{{- $_ := set $all "TEMPORAL_TLS_CLIENT_KEY_PATH" (printf "/etc/lap/temporal/%s" .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $sandbox := fromYaml (include "lap.sandboxSettings" .) -}}
{{- range $name, $value := merge $all $sandbox -}}
{{- if ne $value "" }}
{{ $name }}: {{ $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lap.sandboxSettings" -}}
{{- $selector := list -}}
{{- range $name, $value := .Values.sandbox.nodeSelector -}}{{- $selector = append $selector (printf "%s=%s" $name $value) -}}{{- end -}}
{{- $policy := .Values.networkPolicy.sandboxes -}}
{{- $dns := list -}}
{{- range $name, $value := $policy.dns.podLabels -}}{{- $dns = append $dns (printf "%s=%s" $name $value) -}}{{- end -}}
{{- with .Values.sandbox }}
K8S_SANDBOX_API: {{ .api | quote }}
K8S_NAMESPACE: {{ include "lap.sandboxNamespace" $ | quote }}
K8S_INSTANCE: {{ include "lap.instance" $ | quote }}
K8S_ACCESS: {{ .access | quote }}
K8S_NODE_HOST: {{ .nodeHost | quote }}
K8S_UNSCHEDULABLE_GRACE_SECONDS: {{ include "lap.text" .unschedulableGraceSeconds | quote }}
K8S_SUPERVISOR_PORT: {{ include "lap.text" .supervisorPort | quote }}
K8S_HARNESS_IMAGE: {{ .images.default | quote }}
K8S_HARNESS_IMAGE_OPENCODE: {{ .images.opencode | quote }}
K8S_HARNESS_IMAGE_CLAUDE_SDK: {{ .images.claudeSdk | quote }}
K8S_HARNESS_IMAGE_CLAUDE_CODE: {{ .images.claudeCode | quote }}
K8S_HARNESS_IMAGE_CODEX: {{ .images.codex | quote }}
K8S_HARNESS_IMAGE_QWEN_CODE: {{ .images.qwenCode | quote }}
K8S_IMAGE_PULL_POLICY: {{ .imagePullPolicy | quote }}
K8S_IMAGE_PULL_SECRETS: {{ join "," .imagePullSecrets | quote }}
K8S_SANDBOX_CPU_REQUEST: {{ .resources.requests.cpu | quote }}
K8S_SANDBOX_CPU_LIMIT: {{ .resources.limits.cpu | quote }}
K8S_SANDBOX_MEMORY_REQUEST: {{ .resources.requests.memory | quote }}
K8S_SANDBOX_MEMORY_LIMIT: {{ .resources.limits.memory | quote }}
K8S_SANDBOX_WORK_SIZE: {{ .workSize | quote }}
K8S_PRIORITY_CLASS: {{ include "lap.priorityClass" $ | quote }}
K8S_RUNTIME_CLASS: {{ .runtimeClass | quote }}
K8S_SERVICE_ACCOUNT: {{ include "lap.sandboxServiceAccount" $ | quote }}
K8S_NODE_SELECTOR: {{ join "," $selector | quote }}
K8S_EGRESS_BLOCKED: {{ join "," $policy.blockedRanges | default "none" | quote }}
K8S_EGRESS_ALLOW: {{ join "," $policy.allowedRanges | quote }}
K8S_DNS_POD_LABELS: {{ join "," $dns | quote }}
K8S_TOLERATIONS: {{ if .tolerations }}{{ toJson .tolerations | quote }}{{ else }}""{{ end }}
{{- end }}
{{- end -}}

{{/* What the Secret of this release holds; the platform does not start without the first four. */}}
{{- define "lap.secrets" -}}
{{- $remedy := "is required (or name a Secret of your own in existingSecret)" -}}
{{- range $name := list "DATABASE_URL" "MASTER_KEY" "ENCRYPTION_KEY" "LITELLM_API_KEY" -}}
{{- $_ := required (printf "secrets.%s %s" $name $remedy) (get $.Values.secrets $name) -}}
{{- end -}}
{{- range $name, $value := .Values.secrets -}}
{{- if $value }}
{{ $name }}: {{ $value | b64enc | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Mistakes that no schema sees because they are of several values. */}}
{{- define "lap.validate" -}}
{{- if and .Values.existingSecret .Values.secrets -}}
{{- fail "secrets must be empty when existingSecret is set: put them into that Secret" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host is required when ingress.enabled is true" -}}
{{- end -}}
{{- with .Values.temporal.tls -}}
{{- if and (or .caKey .certKey .keyKey) (not .existingSecret) -}}
{{- fail "temporal.tls.existingSecret is required with temporal.tls.caKey, certKey or keyKey" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.sandbox.nodeHost (ne (include "lap.access" .) "nodeport") -}}
{{- fail "sandbox.nodeHost is for sandbox.access nodeport only" -}}
{{- end -}}
{{- if and (eq (include "lap.access" .) "nodeport") .Values.networkPolicy.enabled (not .Values.networkPolicy.sandboxes.ingressFrom) -}}
{{- fail "networkPolicy.sandboxes.ingressFrom is required with sandbox.access nodeport: node ports come from addresses of nodes, for instance [{ipBlock: {cidr: 10.0.0.0/8}}]" -}}
{{- end -}}
{{- $host := regexReplaceAll "^[a-z]+://([^/:]+).*$" (default "" .Values.settings.LITELLM_API_BASE) "${1}" -}}
{{- $inside := regexMatch "^([^.]+|.*\\.svc|.*\\.svc\\..*|.*\\.cluster\\.local|10\\..*|192\\.168\\..*|172\\.(1[6-9]|2[0-9]|3[01])\\..*)$" $host -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and $host $inside $policy.enabled $policy.sandboxes.blockedRanges (not $policy.sandboxes.egress) (not $policy.sandboxes.allowedRanges) -}}
{{- fail (printf "networkPolicy.sandboxes.egress is required: settings.LITELLM_API_BASE names %s inside the cluster, which no sandbox may reach without a rule, for instance [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: litellm}}}], ports: [{port: 4000}]}]; or its addresses in networkPolicy.sandboxes.allowedRanges" $host) -}}
{{- end -}}
{{- end -}}
