"""Runs in a pod, with the redis-py of the Job's image: `write FROM TO` or `read FROM TO`; prints how many went well."""

import sys

from redis.cluster import RedisCluster

verb, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = RedisCluster("gold-redis", 6379, protocol=2, decode_responses=True, socket_timeout=5)
numbers = range(first, last)
if verb == "write":
    print(sum(bool(client.set(f"key:{number}", f"value {number}")) for number in numbers))
else:
    print(sum(client.get(f"key:{number}") == f"value {number}" for number in numbers))
