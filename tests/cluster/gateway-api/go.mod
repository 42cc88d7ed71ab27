// The definitions of the Gateway API: files of this module. Nothing of it is built.
module tulle/tests/cluster/gateway-api

go 1.24

require sigs.k8s.io/gateway-api v1.6.3
