"""The server that edgetune brings: bundles over HTTP, by the Open Inference Protocol and a plain route for people.

Needs the extra `serve` (Starlette, uvicorn, prometheus-client); nothing outside this folder imports it.
"""
