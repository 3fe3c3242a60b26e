#!/bin/sh
# Prints the Service of each pod from FIRST to LAST. services.yaml has those of six pods. Those of more pods go into a
# file of your overlay, listed under its `resources:`, before the pods are added:
#   sh services.sh 6 7 >services.yaml

ordinal=$1
while [ "$ordinal" -le "$2" ]; do
  cat <<EOT
---
apiVersion: v1
kind: Service
metadata:
  name: redis-app-$ordinal
  labels:
    app.kubernetes.io/name: redis-app
    app.kubernetes.io/component: outside
    app.kubernetes.io/part-of: redis-cluster
  annotations:
    external-dns.alpha.kubernetes.io/hostname: redis-app-$ordinal.DOMAIN
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  publishNotReadyAddresses: true
  selector:
    app.kubernetes.io/name: redis-app
    statefulset.kubernetes.io/pod-name: redis-app-$ordinal
  ports:
    - name: redis-port
      port: 6379
      targetPort: redis-port
      appProtocol: tcp
EOT
  ordinal=$((ordinal + 1))
done
