{{- /*
The helpers. The templates keep to the few actions that `tulle install` renders too: if, else, range, with, define, include and
the functions of cli/src/install/template/functions.rs.
*/}}
{{- define "tulle.namespace" -}}
{{- if ne .Release.Namespace "tulle-system" }}
{{- fail "Tulle lives in the namespace tulle-system: add --namespace tulle-system" }}
{{- end }}
{{- .Release.Namespace }}
{{- end }}

{{- define "tulle.tag" -}}
{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "tulle.labels" -}}
app.kubernetes.io/part-of: tulle
app.kubernetes.io/version: {{ include "tulle.tag" . | quote }}
{{- end }}

{{- /* Not on pods: who manages an object may change, and no pod is replaced for it. */}}
{{- define "tulle.objectLabels" -}}
{{ include "tulle.labels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "tulle.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "tulle.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 1337
runAsGroup: 1337
fsGroup: 1337
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tulle.probes" -}}
startupProbe:
  httpGet: {path: /healthz/live, port: admin}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /healthz/ready, port: admin}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz/live, port: admin}
  periodSeconds: 10
  failureThreshold: 6
{{- end }}
