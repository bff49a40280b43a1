{{- define "lap.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 48 characters, so that the names made from it stay below 63. */}}
{{- define "lap.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains (include "lap.name" .) .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lap.name" .) | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Names of cluster-wide objects: two releases of one name in two namespaces must not meet. */}}
{{- define "lap.clusterName" -}}
{{- $name := include "lap.fullname" . -}}
{{- printf "%s-%s" .Release.Namespace $name | trunc 112 | trimSuffix "-" -}}
{{- end -}}

{{- define "lap.labels" -}}
{{ include "lap.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lap.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lap.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lap.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A number of YAML is a float to a template, which would write a large one with an exponent. */}}
{{- define "lap.text" -}}
{{- if kindIs "float64" . -}}{{ printf "%.0f" . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{- define "lap.secretName" -}}
{{- .Values.existingSecret | default (include "lap.fullname" .) -}}
{{- end -}}

{{- define "lap.sandboxNamespace" -}}
{{- .Values.sandbox.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* Two releases of one name whose sandboxes share a namespace must not meet either. */}}
{{- define "lap.instance" -}}
{{- if .Values.sandbox.instance -}}
{{- .Values.sandbox.instance -}}
{{- else if eq (include "lap.sandboxNamespace" .) .Release.Namespace -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Names of what the chart has where sandboxes live. */}}
{{- define "lap.sandboxesName" -}}
{{- if eq (include "lap.sandboxNamespace" .) .Release.Namespace -}}
{{- include "lap.fullname" . -}}
{{- else -}}
{{- include "lap.clusterName" . -}}
{{- end -}}
{{- end -}}

{{/* Sandboxes of this installation, whatever their state. */}}
{{- define "lap.sandboxLabels" -}}
app.kubernetes.io/managed-by: lap
lap/instance: {{ include "lap.instance" . }}
{{- end -}}

{{/* The platform runs in a pod, where it takes pod-ip unless told otherwise. */}}
{{- define "lap.access" -}}
{{- .Values.sandbox.access | default "pod-ip" -}}
{{- end -}}

{{- define "lap.priorityClass" -}}
{{- with .Values.sandbox.priorityClass -}}
{{- if .create -}}{{ .name | default (printf "%s-sandbox" (include "lap.clusterName" $)) }}{{- else -}}{{ .name }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lap.sandboxServiceAccount" -}}
{{- with .Values.sandbox.serviceAccount -}}
{{- if .create -}}{{ .name | default (printf "%s-sandbox" (include "lap.sandboxesName" $)) }}{{- else -}}{{ .name }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lap.apiServiceAccount" -}}
{{- with .Values.api.serviceAccount -}}
{{- if .create -}}{{ .name | default (printf "%s-api" (include "lap.fullname" $)) }}{{- else -}}{{ .name | default "default" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lap.workerServiceAccount" -}}
{{- with .Values.worker.serviceAccount -}}
{{- if .create -}}{{ .name | default (printf "%s-worker" (include "lap.fullname" $)) }}{{- else -}}{{ .name | default "default" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lap.baseUrl" -}}
{{- if .Values.settings.BASE_URL -}}
{{- .Values.settings.BASE_URL -}}
{{- else if and .Values.ingress.enabled .Values.ingress.host -}}
{{- ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ .Values.ingress.host }}
{{- end -}}
{{- end -}}
