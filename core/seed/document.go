package seed

import "regexp"

var macPattern = regexp.MustCompile(`^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$`)

// UserData is the subset of cloud-config that is written and understood.
type UserData struct {
	Hostname         string   `json:"hostname,omitempty"`
	ManageHosts      bool     `json:"manage_etc_hosts,omitempty"`
	PreserveHostname *bool    `json:"preserve_hostname,omitempty"`
	PasswordLogin    *bool    `json:"ssh_pwauth,omitempty"`
	KeyTypes         []string `json:"ssh_genkeytypes,omitempty"`
	Users            []User   `json:"users,omitempty"`
	WriteFiles       []File   `json:"write_files,omitempty"`
}

// User is one login.
type User struct {
	Name           string   `json:"name"`
	Shell          string   `json:"shell,omitempty"`
	Sudo           string   `json:"sudo,omitempty"`
	LockPassword   bool     `json:"lock_passwd"`
	AuthorizedKeys []string `json:"ssh_authorized_keys,omitempty"`
}

// File is one file to write whole.
type File struct {
	Path        string `json:"path"`
	Owner       string `json:"owner,omitempty"`       // "user:group", default root:root
	Permissions string `json:"permissions,omitempty"` // octal, default 0644
	Encoding    string `json:"encoding,omitempty"`    // "", text/plain, b64 or base64
	Content     string `json:"content"`
}

// MetaData names the instance. A new id means a new machine: the seed is
// applied again.
type MetaData struct {
	InstanceID string `json:"instance-id"`
	Hostname   string `json:"local-hostname,omitempty"`
}

// NetworkConfig is version 2 of cloud-init's network configuration.
type NetworkConfig struct {
	Version   int                 `json:"version"`
	Ethernets map[string]Ethernet `json:"ethernets,omitempty"`
}

// Ethernet configures the card with one MAC address.
type Ethernet struct {
	Match       Match        `json:"match"`
	DHCP4       *bool        `json:"dhcp4,omitempty"`
	DHCP6       *bool        `json:"dhcp6,omitempty"`
	AcceptRA    *bool        `json:"accept-ra,omitempty"`
	Addresses   []string     `json:"addresses,omitempty"`
	Gateway4    string       `json:"gateway4,omitempty"` // older form of a default route
	Routes      []Route      `json:"routes,omitempty"`
	Nameservers *Nameservers `json:"nameservers,omitempty"`
}

// Match says which card is meant.
type Match struct {
	MAC string `json:"macaddress"`
}

// Route is one route.
type Route struct {
	To  string `json:"to"` // prefix, or "default"
	Via string `json:"via"`
}

// Nameservers are DNS servers.
type Nameservers struct {
	Addresses []string `json:"addresses,omitempty"`
	Search    []string `json:"search,omitempty"`
}
