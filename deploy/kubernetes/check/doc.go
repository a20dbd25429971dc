// Package check finds mistakes in the Kubernetes manifests beside it without a cluster and without a network: it builds them as kubectl does, decodes each object
// strictly into its API type, and compares what must fit together. It is a module of its own, so that the program depends on nothing of Kubernetes.
//
// Its limit is that of every check without a server: what an API server validates beyond fields and their types (the form of a name, the range of a number) is
// checked here only where it is listed.
package check
