"""A gRPC server that answers with its name, and a client that calls until it is killed. No generated code.

    grpc.py serve ADDRESS NAME
    grpc.py call TARGET
"""

import sys
import time
from concurrent import futures

# The folder of a script comes first on its path, and there this file is called as the library is.
sys.path.pop(0)

import grpc  # noqa: E402


def serve(address, name):
    def greet(_request, _context):
        return name.encode()

    handler = grpc.unary_unary_rpc_method_handler(greet)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.Greeter", {"Greet": handler})])
    server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    # Not for ever: it may lose who started it.
    server.wait_for_termination(timeout=120)


def call(target):
    greet = grpc.insecure_channel(target).unary_unary("/demo.Greeter/Greet")
    while True:
        try:
            answer = greet(b"", wait_for_ready=True, timeout=20).decode()
            print("answer of", answer, flush=True)
        except grpc.RpcError as error:
            print("failed:", error.code(), error.details(), flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
