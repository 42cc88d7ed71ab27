module tulle/tests/cluster/probe

go 1.24
