// Package control serves the control API: HTTP with JSON under /v1, on the
// listeners it is given.
//
// One table (routes.go) carries the method, path, permission and types of every
// route; routing, authorization, validation of bodies and the OpenAPI document
// come from it, and a route without a permission is denied. Requests that take
// time write rows through the scheduler and answer 202; readers read rows. Only
// validation of a new sandbox or job asks a plugin, under a short deadline.
package control
